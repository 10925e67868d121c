"""What a chat template leaves out of a conversation is refused by its row, never passed over."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureCode, InputError
from dataset.example import ChatMessage, Conversation, conversation
from dataset.rendering.render import render
from tests.trainer.templates import copy_with_template

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL: Any = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
OTHER: Any = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
TALK: list[ChatMessage] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
NEXT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def template(answer: str, before: str = "{{ '<|im_start|>' + m.role + '\n' }}", begin: str = "") -> str:
    tools = "{% if tools %}{{ tools | tojson }}{% endif %}"
    return f"{begin}{tools}{{% for m in messages %}}{before}{answer}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}{NEXT}"


CALLS = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
ALL = template("{{ m.content }}" + CALLS)
CALLS_ALONE = template("{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}")
FIRST_CALL = template("{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}")
NO_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}" + NEXT
)
DEFAULT_SYSTEM = template(
    "{{ m.content }}",
    begin="{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}",
)
EMPTY_THOUGHT = template("{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content }}")


def calling(content: str, *calls: Any) -> Conversation:
    messages: list[ChatMessage] = [
        {"role": "user", "content": "How is Ulm?"},
        {"role": "assistant", "content": content, "tool_calls": list(calls)},
    ]
    return on_row_3(messages, [WEATHER])


def on_row_3(messages: list[ChatMessage], tools: Any = None) -> Conversation:
    found = conversation(messages, tools)
    return Conversation(found.messages, found.supervised, tools, "row 3")


def with_system(content: str) -> Conversation:
    return on_row_3([{"role": "system", "content": content}, *TALK])


@pytest.mark.parametrize(
    ("given", "example", "words"),
    [
        (CALLS_ALONE, calling("Let me look.", CALL), "leaves out the content of messages[1], beside its calls"),
        (FIRST_CALL, calling("", CALL, OTHER), "leaves out calls of messages[1]"),
        (NO_SYSTEM, with_system("Be brief."), "leaves out the system message messages[0]"),
        (
            EMPTY_THOUGHT,
            on_row_3([TALK[0], {"role": "assistant", "content": "<think>\nWho?\n</think>\n\nhello"}]),
            "give what messages[1] thinks as reasoning_content",
        ),
    ],
    ids=["content beside calls", "second call", "system", "a thought of its own"],
)
def test_part_that_the_template_leaves_out_is_refused(
    tokenizer: PreTrainedTokenizerFast, given: str, example: Conversation, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        render(copy_with_template(tokenizer, given), example)
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert caught.value.failure.message.startswith("row 3: the model's chat template ")
    assert words in caught.value.failure.message


@pytest.mark.parametrize(
    ("given", "example"),
    [
        (ALL, calling("Let me look.", CALL, OTHER)),
        (CALLS_ALONE, calling("", CALL, OTHER)),
        (FIRST_CALL, calling("Let me look.", CALL)),
        (NO_SYSTEM, with_system(" ")),
        (DEFAULT_SYSTEM, with_system("Be kind.")),
        (ALL, on_row_3([TALK[0], {"role": "assistant", "content": "<think>\nWho?\n</think>\n\nhello"}])),
    ],
)
def test_conversation_that_is_written_whole_is_learned(
    tokenizer: PreTrainedTokenizerFast, given: str, example: Conversation
) -> None:
    assert len(render(copy_with_template(tokenizer, given), example)) == 1


def test_answer_to_nothing_needs_weight_zero(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [TALK[1], *TALK]
    with pytest.raises(InputError, match=r"row 3: begins with an answer, messages\[0\]"):
        render(copy_with_template(tokenizer, ALL), on_row_3(messages))
    unlearned = Conversation(messages, [False, False, True])
    ((text, ((begin, end),)),) = render(copy_with_template(tokenizer, ALL), unlearned)
    assert text[begin:end] == "hello<|im_end|>\n"
