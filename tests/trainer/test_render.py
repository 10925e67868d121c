import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureReason, InputError
from dataset.chat_templates import CHATML
from dataset.example import Conversation, Message, PlainText, conversation
from dataset.render import render
from dataset.tokenise import encode
from tests.trainer.rendering import as_read, copy_with_template, learned

TALK: list[Message] = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello there!"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLING: list[Message] = [
    {"role": "user", "content": "How is Ulm?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}],
    },
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."},
]
TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
NEXT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def refusal(tokenizer: PreTrainedTokenizerFast, template: str | None, example: Conversation) -> InputError:
    with pytest.raises(InputError) as caught:
        render(copy_with_template(tokenizer, template), example)
    return caught.value


def on_row_3(messages: list[Message], tools: Any = None) -> Conversation:
    found = conversation(messages, tools)
    return Conversation(found.messages, found.supervised, tools, "row 3")


def test_plain_text_is_learned_whole_with_the_end_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ((document,),) = encode(tokenizer, [PlainText("Once upon a time")])
    assert tokenizer.decode(document.input_ids) == "Once upon a time<|im_end|>"
    assert document.supervised == [False] + [True] * (len(document.input_ids) - 1)


def test_plain_text_begins_as_the_tokenizer_begins_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    begins = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    begins.add_bos_token = True
    begins.update_post_processor()
    ((document,),) = encode(begins, [PlainText("Once")])
    assert tokenizer.decode(document.input_ids) == "<|endoftext|>Once<|im_end|>"
    assert learned(tokenizer, document) == "Once<|im_end|>"


def test_plain_text_needs_no_chat_template_but_an_end_of_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode(copy_with_template(tokenizer, None), [PlainText("Once")])
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(InputError, match="no end-of-text token"):
        encode(endless, [PlainText("Once")])


def test_tools_are_shown_and_calls_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    chatml = copy_with_template(tokenizer, "{%- set bos = '' %}" + CHATML)
    ((document,),) = encode(chatml, [conversation(CALLING, [WEATHER])])
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
    assert learned(tokenizer, document) == f"{call}<|im_end|>Sunny.<|im_end|>"
    assert json.dumps(WEATHER) in tokenizer.decode(document.input_ids)


@pytest.mark.parametrize(
    ("template", "tools", "words"),
    [
        ("{% for m in messages %}" + TURN + "{% endfor %}" + NEXT, [WEATHER], "leaves out the tools"),
        ("{% for m in messages %}" + TURN + "{% endfor %}" + NEXT, None, "leaves out the calls of messages[1]"),
        (
            "{% for m in messages %}{% if m.role != 'tool' %}"
            + TURN
            + "{{ m.tool_calls }}{% endif %}{% endfor %}"
            + NEXT,
            None,
            "leaves out what the tool says in messages[2]",
        ),
    ],
)
def test_a_template_that_leaves_out_what_is_to_be_learned_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, tools: Any, words: str
) -> None:
    error = refusal(tokenizer, template, on_row_3(CALLING, tools))
    assert error.failure.reason == FailureReason.MODEL_UNSUPPORTED
    assert error.failure.message.startswith("row 3: ")
    assert words in error.failure.message


def test_a_template_that_writes_an_answer_unlike_its_prompt_is_refused_by_its_row(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    error = refusal(tokenizer, "{{ messages | length }}: {{ messages[-1]['content'] }}", on_row_3(TALK))
    assert error.failure.reason == FailureReason.MODEL_UNSUPPORTED
    assert error.failure.message.startswith("row 3: the model's chat template")


# In the style of those that many models have.
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<User>' + m.content }}"
    "{% else %}{{ '<Assistant>' + m.content.split('</think>')[-1].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<Assistant><think>\n' }}{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.removesuffix(answer).strip('\n') %}"
    "{% set thought = thought.removeprefix('<think>').removesuffix('</think>').strip('\n') %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ answer + '<|im_end|>\n' }}{% endfor %}" + NEXT
)
LLAMA3 = (
    "{{ bos_token + '<h>system</h>\n\nToday Date: ' + strftime_now('%d %b %Y') + '\n\n<|im_end|>' }}"
    "{% for m in messages %}{{ '<h>' + m.role + '</h>\n\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<h>assistant</h>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start>' + role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>model\n' }}{% endif %}"
)
THINKING: list[Message] = [TALK[0], {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello there!"}]


@pytest.mark.parametrize(
    ("template", "messages", "answers"),
    [
        (R1, TALK, ["</think>\n\nHello there!"]),
        (R1, THINKING, ["A greeting.\n</think>\n\nHello there!"]),
        (R1, [*THINKING, *TALK], ["A greeting.\n</think>\n\nHello there!", "</think>\n\nHello there!"]),
        (QWEN3, TALK, ["<think>\n\n</think>\n\nHello there!"]),
        (QWEN3, THINKING, ["<think>\nA greeting.\n</think>\n\nHello there!"]),
        (LLAMA3, TALK * 2, ["Hello there!", "Hello there!"]),
        (GEMMA, TALK * 2, ["Hello there!", "Hello there!"]),
    ],
    ids=["R1", "R1 thinks", "R1 thinks in turns", "Qwen3", "Qwen3 thinks", "Llama 3", "Gemma"],
)
def test_an_answer_is_learned_as_it_is_generated_after_the_prompt(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str, messages: list[Message], answers: list[str]
) -> None:
    copy = copy_with_template(tokenizer, template)
    copy.bos_token = "<|endoftext|>"
    styled = as_read(copy, tmp_path)
    found = [
        (text[:begin], text[begin:end])
        for text, spans in render(styled, conversation(messages))
        for begin, end in spans
    ]
    assert [said.rstrip() for _, said in found] == [f"{answer}<|im_end|>" for answer in answers]
    # To the letter, it follows what generation is asked with.
    prompts = [
        styled.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    assert [prompt for prompt, _ in found] == prompts
    texts = [document for part in encode(styled, [conversation(messages)]) for document in part]
    assert "".join(learned(tokenizer, document) for document in texts) == "".join(f"{a}<|im_end|>" for a in answers)


def test_a_template_that_writes_todays_date_writes_the_same_on_any_day(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    copy = copy_with_template(tokenizer, LLAMA3)
    copy.bos_token = "<|endoftext|>"
    styled = as_read(copy, tmp_path)
    ((text, _),) = render(styled, conversation(TALK))
    assert "Today Date: 26 Jul 2024\n" in text


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ 1 + 'a' }}", "{{ messages.x.y }}"])
def test_a_conversation_that_the_template_refuses_is_told_by_its_row(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    error = refusal(tokenizer, template, on_row_3(TALK))
    assert error.failure.reason == FailureReason.DATASET_INVALID
    assert error.failure.message.startswith("row 3: the model's chat template refuses it: ")


def test_a_model_without_a_chat_template_is_told_of_those_that_there_are(tokenizer: PreTrainedTokenizerFast) -> None:
    error = refusal(tokenizer, None, on_row_3(TALK))
    assert error.failure.reason == FailureReason.MODEL_UNSUPPORTED
    assert "dataset.chat_template" in error.failure.message
