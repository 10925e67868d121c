"""Finds the calls of tools in an answer, where the chat template's way of writing them is known."""

import json
from typing import Any

from contract.inference import Call

BEGIN, END = "<tool_call>", "</tool_call>"


def writes_known_calls(chat_template: Any) -> bool:
    """Whether the template writes a call as JSON between <tool_call> and </tool_call>, as Hermes, Qwen2.5 and Qwen3 do,
    and our own "chatml"."""
    texts = chat_template.values() if isinstance(chat_template, dict) else [chat_template]
    return any(BEGIN in text and "<function=" not in text and "arguments" in text for text in map(str, texts))


def find_calls(answer: str) -> tuple[str, list[Call]]:
    """The text before the calls, and the calls. All is text if a call is not whole."""
    before, begin, rest = answer.partition(BEGIN)
    calls = []
    for part in rest.split(BEGIN) if begin else []:
        call = _read(part.partition(END)[0])
        if call is None:
            return answer, []
        calls.append(call)
    return (before.rstrip() if calls else answer), calls


def _read(text: str) -> Call | None:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict) or not isinstance(read.get("name"), str):
        return None
    arguments = read.get("arguments", {})
    return Call(name=read["name"], arguments=arguments) if isinstance(arguments, dict) else None
