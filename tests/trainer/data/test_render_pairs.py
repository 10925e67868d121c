"""Pairs and rated answers as documents: the same prompt, and only the answers learned."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureCode, InputError
from dataset.example import ChatMessage, Preference, RatedAnswer, conversation, with_place
from dataset.rendering.chat_templates import CHATML
from dataset.rendering.render import render
from dataset.rendering.tokenise import encode
from tests.trainer.templates import (
    ALL_TURNS,
    CALLING,
    CHANNELS,
    CLOSED,
    FORGETFUL,
    GEMMA,
    LAST_ONLY,
    LLAMA3,
    LONG_TALK,
    QWEN3,
    R1,
    copy_with_template,
    learned,
)

TEMPLATES = {
    **{"Qwen3": QWEN3, "R1": R1, "Llama 3": LLAMA3, "Gemma": GEMMA, "last only": LAST_ONLY, "all turns": ALL_TURNS},
    **{"closed": CLOSED, "channels": CHANNELS, "forgetful": FORGETFUL, "chatml": "{%- set bos = '' %}" + CHATML},
}
WORDS = st.text(st.sampled_from("ab é八\n.!"), min_size=1, max_size=12).filter(str.strip)
TURNS = st.lists(st.tuples(WORDS, WORDS), max_size=2)


def pair_of(prompt: list[ChatMessage], *ends: list[ChatMessage]) -> Preference:
    unlearned = frozenset(range(len(prompt)))
    chosen, rejected = (conversation([*prompt, *end], None, unlearned) for end in ends)
    found = with_place(Preference(chosen, rejected), "row 3")
    assert isinstance(found, Preference)
    return found


def said(content: str, **more: Any) -> ChatMessage:
    return {"role": "assistant", "content": content, **more}  # type: ignore[typeddict-item]


def styled(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    copy = copy_with_template(tokenizer, template)
    copy.bos_token = "<|endoftext|>"
    return copy


@pytest.mark.parametrize("template", TEMPLATES)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(earlier=TURNS, question=WORDS, good=WORDS, bad=WORDS)
def test_both_answers_follow_the_same_prompt(
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    earlier: list[tuple[str, str]],
    question: str,
    good: str,
    bad: str,
) -> None:
    turns = [part for before, answer in earlier for part in (("user", before), ("assistant", answer))]
    prompt: list[ChatMessage] = [{"role": role, "content": text} for role, text in [*turns, ("user", question)]]
    model = styled(tokenizer, TEMPLATES[template])
    example = pair_of(prompt, [said(good)], [said(bad)])
    texts = render(model, example)
    begins = {text[: spans[0][0]] for text, spans in texts}
    assert begins == {model.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)}
    ((chosen, rejected),) = encode(model, [example])
    common = next(
        (n for n, (a, b) in enumerate(zip(chosen.input_ids, rejected.input_ids, strict=False)) if a != b),
        min(len(chosen.input_ids), len(rejected.input_ids)),
    )
    # A token may reach from the prompt into an answer; before it, both are the same.
    (prompt_text,) = begins
    offsets = model([texts[0][0]], return_offsets_mapping=True)["offset_mapping"][0]
    first_word = prompt_text.rstrip()
    assert common >= sum(end <= len(first_word) for _, end in offsets)
    if not good[0].isspace() and not bad[0].isspace():
        assert common >= chosen.supervised.index(True) == rejected.supervised.index(True)
    for document, answer in ((chosen, good), (rejected, bad)):
        assert document.targets
        assert answer.strip() in learned(tokenizer, document)


def test_pair_has_two_documents_and_a_rating_one(tokenizer: PreTrainedTokenizerFast) -> None:
    model = styled(tokenizer, LAST_ONLY)
    pair = pair_of(LONG_TALK[:3], [said("Goodbye.")], [said("Go.", reasoning_content="They leave.")])
    rated = RatedAnswer(conversation(LONG_TALK, None, frozenset({1})), desirable=False)
    found = encode(model, [pair, rated, pair])
    assert [len(documents) for documents in found] == [2, 1, 2]
    assert [learned(tokenizer, document) for document in found[0]] == [
        "<think>\n\n</think>\n\nGoodbye.<|im_end|>",
        "<think>\nThey leave.\n</think>\n\nGo.<|im_end|>",
    ]
    assert learned(tokenizer, found[1][0]).endswith(f"{LONG_TALK[3]['content']}<|im_end|>")
    assert found[2] == found[0]


def test_answer_of_several_turns_is_one_text_where_the_template_can(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = pair_of(LONG_TALK[:1], LONG_TALK[1:], [said("No."), *LONG_TALK[2:]])
    ((chosen, _),) = encode(styled(tokenizer, "{%- set bos = '' %}" + CHATML), [pair])
    assert learned(tokenizer, chosen) == "Hello there!<|im_end|>Goodbye, and see you soon.<|im_end|>"
    with pytest.raises(InputError, match="row 3, chosen: the model's chat template writes 2 texts") as refused:
        encode(styled(tokenizer, QWEN3), [pair])
    assert refused.value.failure.code == FailureCode.MODEL_UNSUPPORTED


def test_call_and_answer_of_a_pair_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    pair = pair_of(CALLING[:1], CALLING[1:], [said("I cannot say.")])
    ((chosen, rejected),) = encode(styled(tokenizer, "{%- set bos = '' %}" + CHATML), [pair])
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
    assert learned(tokenizer, chosen) == f"{call}<|im_end|>Sunny.<|im_end|>"
    assert learned(tokenizer, rejected) == "I cannot say.<|im_end|>"


def test_refused_answer_is_named(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    pair = pair_of(LONG_TALK[:1], [said("Hi.")], [said("Hi.", reasoning_content="A greeting.")])
    with pytest.raises(InputError, match="row 3, rejected: the model's chat template leaves out reasoning_content"):
        encode(styled(tokenizer, "{%- set bos = '' %}" + CHATML), [pair])
