import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureCode, InputError
from dataset.example import ChatMessage, Conversation, PlainText, conversation
from dataset.rendering.chat_templates import CHATML
from dataset.rendering.render import render
from dataset.rendering.tokenise import encode
from tests.trainer.templates import (
    ALL_TURNS,
    CALLING,
    CHANNELS,
    CLOSED,
    GEMMA,
    LAST_ONLY,
    LLAMA3,
    NEXT,
    QWEN3,
    R1,
    TALK,
    THOUGHTFUL,
    THOUGHTFUL_CALL,
    TURN,
    WEATHER,
    as_read,
    copy_with_template,
    learned,
)


def refusal(tokenizer: PreTrainedTokenizerFast, template: str | None, example: Conversation) -> InputError:
    with pytest.raises(InputError) as caught:
        render(copy_with_template(tokenizer, template), example)
    return caught.value


def on_row_3(messages: list[ChatMessage], tools: Any = None) -> Conversation:
    found = conversation(messages, tools)
    return Conversation(found.messages, found.supervised, tools, "row 3")


def test_plain_text_is_learned_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    ((document,),) = encode(tokenizer, [PlainText("Once upon a time")])
    assert tokenizer.decode(document.input_ids) == "Once upon a time<|im_end|>"
    assert document.supervised == [False] + [True] * (len(document.input_ids) - 1)


def test_plain_text_begins_like_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    begins = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    begins.add_bos_token = True
    begins.update_post_processor()
    ((document,),) = encode(begins, [PlainText("Once")])
    assert tokenizer.decode(document.input_ids) == "<|endoftext|>Once<|im_end|>"
    assert learned(tokenizer, document) == "Once<|im_end|>"


def test_plain_text_needs_an_end_token_only(tokenizer: PreTrainedTokenizerFast) -> None:
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
def test_template_that_drops_content_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, tools: Any, words: str
) -> None:
    error = refusal(tokenizer, template, on_row_3(CALLING, tools))
    assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert error.failure.message.startswith("row 3: ")
    assert words in error.failure.message


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("Hi.", 1),
        ("", 1),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content if m.role == 'user' }}{% endfor %}" + NEXT, 1),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content if m.role != 'user' }}{% endfor %}" + NEXT, 0),
    ],
)
def test_template_without_question_or_answer_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, place: int
) -> None:
    error = refusal(tokenizer, template, on_row_3(TALK))
    assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert f"leaves out the content of messages[{place}]" in error.failure.message


def test_template_with_unlike_prompt_is_refused_by_row(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    error = refusal(tokenizer, "{{ messages | length }}: {{ messages[-1]['content'] }}", on_row_3(TALK))
    assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert error.failure.message.startswith("row 3: the model's chat template")


THINKING: list[ChatMessage] = [
    TALK[0],
    {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello there!"},
]


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
def test_answer_is_learned_as_generated(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str, messages: list[ChatMessage], answers: list[str]
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
    # To the letter, it follows the prompt of a generation.
    prompts = [
        styled.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    assert [prompt for prompt, _ in found] == prompts
    texts = [document for part in encode(styled, [conversation(messages)]) for document in part]
    assert "".join(learned(tokenizer, document) for document in texts) == "".join(f"{a}<|im_end|>" for a in answers)


def test_template_date_is_always_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    copy = copy_with_template(tokenizer, LLAMA3)
    copy.bos_token = "<|endoftext|>"
    styled = as_read(copy, tmp_path)
    ((text, _),) = render(styled, conversation(TALK))
    assert "Today Date: 26 Jul 2024\n" in text


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ 1 + 'a' }}", "{{ messages.x.y }}"])
def test_refused_conversation_is_named_by_its_row(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    error = refusal(tokenizer, template, on_row_3(TALK))
    assert error.failure.code == FailureCode.DATASET_INVALID
    assert error.failure.message.startswith("row 3: the model's chat template refuses it: ")


def test_missing_chat_template_is_refused_with_choices(tokenizer: PreTrainedTokenizerFast) -> None:
    error = refusal(tokenizer, None, on_row_3(TALK))
    assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert "dataset.chat_template" in error.failure.message


DEAF = "{% for m in messages %}" + TURN + "{% endfor %}" + NEXT


def learned_of(tokenizer: PreTrainedTokenizerFast, template: str, example: Conversation) -> list[list[str]]:
    """Of each text."""
    styled = copy_with_template(tokenizer, template)
    styled.bos_token = "<|endoftext|>"
    return [[text[begin:end].rstrip() for begin, end in spans] for text, spans in render(styled, example)]


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (LAST_ONLY, [["<think>\nA greeting.\n</think>\n\nHello!"], ["<think>\nThey leave.\n</think>\n\nGoodbye."]]),
        (ALL_TURNS, [["<thought>A greeting.Hello!", "<thought>They leave.Goodbye."]]),
        (R1, [["A greeting.\n</think>\n\nHello!"], ["They leave.\n</think>\n\nGoodbye."]]),
        (
            CHANNELS,
            [
                ["<analysis>\nA greeting.\n<assistant><final>Hello!"],
                ["<analysis>They leave.<assistant><final>Goodbye."],
            ],
        ),
    ],
    ids=["in the last turn", "in all turns", "opened by the prompt", "in a channel"],
)
def test_thought_is_learned_with_its_answer(
    tokenizer: PreTrainedTokenizerFast, template: str, answers: list[list[str]]
) -> None:
    found = learned_of(tokenizer, template, conversation(THOUGHTFUL))
    assert found == [[f"{answer}<|im_end|>" for answer in text] for text in answers]


def test_earlier_thoughts_follow_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    (first, _), (second, _) = render(copy_with_template(tokenizer, LAST_ONLY), conversation(THOUGHTFUL))
    assert "A greeting." in first
    assert "A greeting." not in second
    # One that is not learned need not be shown at all.
    unlearned = conversation(THOUGHTFUL, left_out=frozenset({1}))
    assert learned_of(tokenizer, LAST_ONLY, unlearned) == [["<think>\nThey leave.\n</think>\n\nGoodbye.<|im_end|>"]]


def test_answer_after_a_thoughtful_call_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    styled = copy_with_template(tokenizer, CHANNELS)
    (_, _), (text, ((begin, end),)) = render(styled, conversation(THOUGHTFUL_CALL))
    assert text[:begin] == styled.apply_chat_template(THOUGHTFUL_CALL[:3], tokenize=False, add_generation_prompt=True)
    assert "<analysis>Ask the tool.<assistant><to>weather" in text[:begin]
    assert text[begin:end] == "<analysis>It shines.<assistant><final>Sunny.<|im_end|>"


@pytest.mark.parametrize("template", [DEAF, "{%- set bos = '' %}" + CHATML])
@pytest.mark.parametrize("thought", ["A greeting.", "Hello"])
def test_thought_that_the_template_ignores_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, thought: str
) -> None:
    messages: list[ChatMessage] = [TALK[0], {**TALK[1], "reasoning_content": thought}]
    error = refusal(tokenizer, template, on_row_3(messages))
    assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert error.failure.message.startswith("row 3: ")
    assert "leaves out reasoning_content of messages[1]" in error.failure.message


def test_ignored_calls_are_refused_beside_thoughts(tokenizer: PreTrainedTokenizerFast) -> None:
    error = refusal(tokenizer, ALL_TURNS, on_row_3(THOUGHTFUL_CALL))
    assert "leaves out the calls of messages[1]" in error.failure.message


def test_thinking_row_needs_a_thinking_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    error = refusal(tokenizer, CLOSED, on_row_3(THOUGHTFUL))
    assert '"chat_template_kwargs": {"enable_thinking": true}' in error.failure.message
    thinks = replace(on_row_3(THOUGHTFUL[2:]), template_arguments={"enable_thinking": True})
    assert learned_of(tokenizer, CLOSED, thinks) == [["They leave.\n</think>\n\nGoodbye.<|im_end|>"]]
    silent = replace(on_row_3(TALK), template_arguments={"enable_thinking": False})
    assert learned_of(tokenizer, CLOSED, silent) == [["Hello there!<|im_end|>"]]


def test_template_argument_that_the_template_ignores_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    for template in (DEAF, LAST_ONLY):
        for value in (True, False, "low", 0):
            error = refusal(tokenizer, template, replace(on_row_3(TALK), template_arguments={"thinking": value}))
            assert error.failure.code == FailureCode.MODEL_UNSUPPORTED
            assert error.failure.message.startswith("row 3: the model's chat template has no use for thinking")
        # What is empty asks for nothing.
        empty = replace(on_row_3(TALK), template_arguments={"tools_in_python": [], "custom": ""})
        assert learned_of(tokenizer, template, empty) == learned_of(tokenizer, template, on_row_3(TALK))


def test_template_defaults_keep_its_arguments(tokenizer: PreTrainedTokenizerFast) -> None:
    default = "{% if effort is not defined %}{% set effort = 'high' %}{% endif %}{{ effort + '\n' }}" + DEAF
    ((text, _),) = render(copy_with_template(tokenizer, default), on_row_3(TALK))
    assert text.startswith("high\n")
    low = replace(on_row_3(TALK), template_arguments={"effort": "low"})
    ((text, _),) = render(copy_with_template(tokenizer, default), low)
    assert text.startswith("low\n")
