"""A prompt of many messages renders each a bounded number of times, and still leaves nothing out."""

from pathlib import Path
from typing import Any

import pytest

from contract.failure import InputError
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.prompt import chat_prompt
from dataset.rendering.tokenizer import set_chat_template
from tests.support.files import CHATML, write_tokenizer

CALL = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
TURNS: list[dict[str, Any]] = [
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "one"},
    {"role": "assistant", "content": "Again.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "two"},
    {"role": "tool", "content": "three"},
    {"role": "system", "content": "Be brief."},
]


def conversation(rounds: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Look."}, *TURNS * rounds]


class Counting:
    """A tokenizer that counts the messages it renders."""

    def __init__(self, folder: Path) -> None:
        write_tokenizer(folder, CHATML)
        self.own = read_tokenizer(folder)
        set_chat_template(self.own, "chatml")
        self.chat_template = self.own.chat_template
        self.rendered = 0

    def apply_chat_template(self, messages: list[Any], **arguments: Any) -> Any:
        self.rendered += len(messages)
        return self.own.apply_chat_template(messages, **arguments)

    def __call__(self, *texts: Any, **arguments: Any) -> Any:
        return self.own(*texts, **arguments)


def test_rendering_grows_with_the_number_of_messages(tmp_path: Path) -> None:
    rendered = []
    for rounds in (10, 40):
        tokenizer: Any = Counting(tmp_path)
        chat_prompt(tokenizer, conversation(rounds), None, {})
        rendered.append(tokenizer.rendered / len(conversation(rounds)))
    assert rendered[1] <= rendered[0] * 1.2


@pytest.mark.parametrize("role", ["system", "tool", "assistant"])
def test_what_the_template_leaves_out_late_is_refused(tmp_path: Path, role: str) -> None:
    write_tokenizer(
        tmp_path,
        "{% for m in messages %}{% if m.role != '" + role + "' %}{{ m.role + m.content }}"
        "{{ m.tool_calls | tojson if m.tool_calls }}{% endif %}{% endfor %}",
    )
    with pytest.raises(InputError, match=r"leaves out .*messages\[\d+\]"):
        chat_prompt(read_tokenizer(tmp_path), conversation(3), None, {})
