"""A prompt has the tokens that a dataset's preview shows before the answer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.failure import InputError
from contract.inference import Call
from dataset.example import conversation
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.prompt import chat_prompt, text_prompt
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import set_chat_template
from dataset.rendering.tool_calls import find_calls, writes_known_calls
from tests.support.files import CHATML, write_tokenizer

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
TEXTS = st.text("ab \n<>|中", min_size=1).filter(str.strip)


@pytest.fixture(scope="module", params=["own", "chatml", "alpaca", "plain"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, CHATML)
    found = read_tokenizer(folder)
    if request.param != "own":
        set_chat_template(found, request.param)
    return found


@given(texts=st.lists(TEXTS, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_prompt_has_the_tokens_before_the_answer(tokenizer: Any, texts: list[str]) -> None:
    roles = ["user", "assistant"] * len(texts)
    messages: list[Any] = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    earlier = frozenset(range(len(messages) - 1))
    ((document,),) = encode(tokenizer, [conversation(messages, left_out=earlier)])
    begin = document.supervised.index(True)
    assert chat_prompt(tokenizer, messages[:-1], None, {}) == document.input_ids[:begin]


def test_conversation_that_waits_for_no_answer_is_refused(tokenizer: Any) -> None:
    for messages in ([], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]):
        with pytest.raises(InputError, match=r"^messages"):
            chat_prompt(tokenizer, messages, None, {})
    with pytest.raises(InputError, match=r"messages\[0\].role"):
        chat_prompt(tokenizer, [{"role": "poet", "content": "a"}], None, {})


def test_calls_are_found_only_where_they_are_whole() -> None:
    one = '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>'
    two = f'Well.\n{one}\n<tool_call>{{"name": "go"}}</tool_call>'
    assert find_calls(two) == ("Well.", [Call(name="look", arguments={"at": 1}), Call(name="go", arguments={})])
    for text in ("none", "<tool_call>{torn", '<tool_call>{"name": "look", "arguments": 3}</tool_call>'):
        assert find_calls(text) == (text, [])


def test_template_with_unknown_calls_is_recognised(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHATML)
    found = read_tokenizer(tmp_path)
    assert not writes_known_calls(found.chat_template)
    set_chat_template(found, "chatml")
    assert writes_known_calls(found.chat_template)
    assert len(chat_prompt(found, [{"role": "user", "content": "a"}], [TOOL], {})) > 20
    assert text_prompt(found, "a")
