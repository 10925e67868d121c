"""Tokenizers with another chat template, and what is learned of a document."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from dataset.document import Document
from dataset.example import ChatMessage
from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from dataset.rendering.tokenizer import TODAY

_DATE_CODES = ("-d", "-m", *"aAbBcdDeFHIjmMpSTuUVwWxXyY")
"""Of strftime."""


def as_read(tokenizer: PreTrainedTokenizerFast, folder: Path) -> FolderTokenizer:
    """As previews and training read it from its folder."""
    tokenizer.save_pretrained(folder)
    return read_tokenizer(folder)


def with_fixed_date(template: Any) -> Any:
    """A chat template that writes dataset.rendering.tokenizer.TODAY: transformers gives it the clock."""
    if not isinstance(template, str) or "strftime_now" not in template:
        return template
    written = "".join(f" | replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in _DATE_CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{written} }}}}{{% endmacro +%}}{template}"


def learned(tokenizer: Any, document: Document) -> str:
    return tokenizer.decode([t for t, flag in zip(document.input_ids, document.supervised, strict=True) if flag])


def copy_with_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token, chat_template=template
    )


TALK: list[ChatMessage] = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello there!"}]


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


CALLING: list[ChatMessage] = [
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


# As those of Qwen3, gpt-oss and Gemma, in what they read of a thought and when they leave it out.
LAST_ONLY = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '').strip() + '\n</think>\n\n' }}{% endif %}{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}" + NEXT
)


CHANNELS = (
    "{% set ns = namespace(final=-1) %}{% for m in messages %}{% if m.role == 'assistant' and not m.tool_calls %}"
    "{% set ns.final = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role != 'assistant' %}"
    "{{ '<' + m.role + '>' + m.content }}{% else %}"
    "{% if m.thinking and (loop.index0 > ns.final or loop.last and not add_generation_prompt) %}"
    "{{ '<assistant><analysis>' + m.thinking }}{% endif %}{% if m.tool_calls %}"
    "{{ '<assistant><to>' + m.tool_calls[0].function.name }}{% else %}{{ '<assistant><final>' + m.content }}{% endif %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


ALL_TURNS = (
    "{% for m in messages %}{{ '<' + m.role + '>' }}{% if m.reasoning %}{{ '<thought>' + m.reasoning | trim }}"
    "{% endif %}{{ m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


CLOSED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}"
    "{% endfor %}" + NEXT + "{% if add_generation_prompt and enable_thinking %}{{ '<think>\n' }}"
    "{% elif add_generation_prompt %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)


THOUGHTFUL: list[ChatMessage] = [
    TALK[0],
    {"role": "assistant", "content": "Hello!", "reasoning_content": "\nA greeting.\n"},
    {"role": "user", "content": "Bye."},
    {"role": "assistant", "content": "Goodbye.", "reasoning_content": "They leave."},
]


THOUGHTFUL_CALL: list[ChatMessage] = [
    CALLING[0],
    {**CALLING[1], "reasoning_content": "Ask the tool."},
    CALLING[2],
    {**CALLING[3], "reasoning_content": "It shines."},
]


LONG_TALK: list[ChatMessage] = [
    {"role": "user", "content": "Say hello, please."},
    {"role": "assistant", "content": "Hello there!"},
    {"role": "user", "content": "And now goodbye."},
    {"role": "assistant", "content": "Goodbye, and see you soon."},
]


THOUGHTFUL_TALK: list[ChatMessage] = [
    LONG_TALK[0],
    {"role": "assistant", "content": "<think>A greeting.</think>Hello there!"},
    LONG_TALK[2],
    {"role": "assistant", "content": "<think>They leave.</think>Goodbye, and see you soon."},
]


# As Qwen3's: what the assistant thought is shown in its last turn only.
FORGETFUL = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and not loop.last %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
