"""The service's preview shows what the trainer learns: without transformers the same text, the same tokens, the same
flags."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from contract.failure import InputError
from dataset.document import Document, truncate_document, truncation
from dataset.example import ChatMessage, Example, PlainText, conversation
from dataset.rendering.chat_templates import CHAT_TEMPLATES
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.render import render
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import set_chat_template
from finetuned.stack.models import SHIPPED
from finetuned.stack.wheel import wheel_folder
from tests.trainer.templates import (
    ALL_TURNS,
    CALLING,
    CHANNELS,
    CLOSED,
    FORGETFUL,
    LAST_ONLY,
    LLAMA3,
    NEXT,
    R1,
    THOUGHTFUL,
    THOUGHTFUL_CALL,
    THOUGHTFUL_TALK,
    TURN,
    WEATHER,
    with_fixed_date,
)
from trainer.data.tokens import flatten, truncate_documents

TALK: list[ChatMessage] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Is 7 prime? \n"},
    {"role": "assistant", "content": "Yes.\n\n"},
    {"role": "user", "content": "And 8, “八” & <b>?"},
    {"role": "assistant", "content": "No. 🙂<|im_end|>"},
]
EXAMPLES: list[Example] = [
    conversation(TALK),
    conversation(TALK, left_out=frozenset({2})),
    conversation(THOUGHTFUL_TALK),
    conversation(TALK[2:]),
    conversation(CALLING, [WEATHER]),
    conversation(THOUGHTFUL),
    conversation(THOUGHTFUL_CALL, [WEATHER]),
    replace(conversation(TALK), template_arguments={"enable_thinking": False}),
    replace(conversation(THOUGHTFUL), template_arguments={"enable_thinking": True, "effort": "八 <b>"}),
    PlainText("Once upon a time,\n there was 八."),
]
TEMPLATES = {
    "chatml": "{% for m in messages %}" + TURN + "{% endfor %}" + NEXT,
    "forgets": FORGETFUL,
    "begins with bos": "{{ bos_token }}{% for m in messages %}" + TURN + "{% endfor %}" + NEXT,
    "marks what is generated": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}" + NEXT
    ),
    "trims, breaks, counts": (
        "{% set ns = namespace(n=0) %}\n  {% for m in messages %}\n{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{{ ns.n }} {{ m.role }}: {{ m['content'] | trim }}<|im_end|>\n{% endfor %}\n"
        "{% if add_generation_prompt %}{{ ns.n + 1 }} assistant: {% endif %}"
    ),
    "writes tools": (
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% for m in messages %}{{ m | tojson }}<|im_end|>"
        "{% endfor %}"
    ),
    "opens a thought": R1,
    "writes the last thought": LAST_ONLY,
    "writes all thoughts": ALL_TURNS,
    "thinks in a channel": CHANNELS,
    "thinks if the row says so": CLOSED,
    "writes an argument": "{{ effort }}{{ enable_thinking | tojson }}" + ALL_TURNS,
    "writes messages with their thoughts": "{{ messages | tojson }}",
    "writes the date": LLAMA3,
    "writes the date in many ways": (
        "\n{% if strftime_now is defined %}{{ strftime_now('%A %-d %B %y, %F %H:%M') }}{% endif %}"
        "{% for m in messages %}" + TURN + "{% endfor %}" + NEXT
    ),
    "is not the prompt's beginning": "{{ messages | length }}: {{ messages[-1]['content'] }}",
    "refuses": "{{ raise_exception('no') }}",
    "is no template": "{% if %}",
    "looks for Python": "{{ messages.__class__.__mro__ }}",
}


def read(folder: Path, name: str | None) -> tuple[Any, Any]:
    both = AutoTokenizer.from_pretrained(folder), read_tokenizer(folder)
    both[0].chat_template = with_fixed_date(both[0].chat_template)
    for tokenizer in both:
        if name is not None:
            set_chat_template(tokenizer, name)
    return both


def reported(tokenizer: Any, example: Example) -> Any:
    """Texts with their answers, and documents; or the words of the refusal."""
    try:
        return render(tokenizer, example), encode(tokenizer, [example])
    except InputError as error:
        return error.failure.code, error.failure.message.partition(" refuses it: ")[0]


def assert_same(folder: Path, name: str | None = None) -> list[Any]:
    ours, trainers = [], []
    theirs, own = read(folder, name)
    for example in EXAMPLES:
        trainers.append(reported(theirs, example))
        ours.append(reported(own, example))
    assert ours == trainers
    assert set(own.all_special_ids) >= set(theirs.all_special_ids)
    return ours


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_writes_the_same_without_transformers(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str
) -> None:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATES[template],
    )
    copy.save_pretrained(tmp_path)
    assert_same(tmp_path)


@pytest.mark.parametrize("begins", [None, False, True])
@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_named_template_is_independent_of_bos(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, name: str, begins: bool | None
) -> None:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    if begins is not None:
        copy.add_bos_token = begins
        copy.update_post_processor()
    copy.save_pretrained(tmp_path)
    talk = assert_same(tmp_path, name)[0]
    assert talk[0][0][0].startswith("<|endoftext|>") == bool(begins)


def test_tool_template_is_used_for_tools(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        chat_template={"default": TEMPLATES["chatml"], "tool_use": TEMPLATES["writes tools"]},
        extra_special_tokens=["<tool>"],
    )
    copy.save_pretrained(tmp_path)
    assert_same(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_demos_model_has_the_same_tokens_without_transformers(tmp_path: Path) -> None:
    shipped = SHIPPED["smollm2-135m-instruct"]
    AutoTokenizer.from_pretrained(wheel_folder(shipped.package), gguf_file=shipped.file).save_pretrained(tmp_path)
    talk = assert_same(tmp_path)[0]
    assert "<|im_start|>assistant" in talk[0][0][0]
    for name in CHAT_TEMPLATES:
        assert_same(tmp_path, name)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.lists(st.booleans(), max_size=12), max_size=3), max_size=4),
    st.integers(min_value=1, max_value=12),
)
def test_one_document_is_cut_like_the_dataset(flags: list[list[list[bool]]], max_length: int) -> None:
    examples = [[Document(list(range(len(each))), each) for each in example] for example in flags]
    lengths, targets = truncate_documents(flatten(examples), max_length)
    documents = [truncate_document(document, max_length) for example in examples for document in example]
    assert [len(document.input_ids) for document in documents] == lengths.tolist()
    assert [document.targets for document in documents] == targets.tolist()
    fits = [truncation(example, max_length) for example in examples]
    assert [each.dropped for each in fits] == [
        not any(truncate_document(document, max_length).targets for document in example) for example in examples
    ]
    assert not any(each.dropped and each.truncated for each in fits)
