"""A prompt with its completion, and plain text."""

from typing import Any

from dataset.example import Conversation, PlainText
from dataset.fields import Row, as_text, optional_text
from dataset.formats.messages import read_messages
from dataset.formats.tool_use import read_tools
from dataset.formats.turns import Turn, as_conversation
from dataset.refusal import BadRow, NoAnswer


def from_prompt_completion(row: Row) -> Conversation:
    """{"prompt": ..., "completion": ...}, each a text or a list of messages. Answers in the prompt are not learned."""
    prompt = [(message, False) for message, _ in _turns("prompt", row.get("prompt"), "user")]
    completion = _turns("completion", row.get("completion"), "assistant")
    found = as_conversation([*prompt, *completion], optional_text(row, "system"), read_tools(row.get("tools")))
    if not any(found.supervised):
        raise NoAnswer("has no answer: no message of completion is an assistant's with a weight other than 0")
    return found


def _turns(name: str, value: Any, role: str) -> list[Turn]:
    if isinstance(value, list):
        return read_messages(name, value)
    content = as_text(name, value)
    if not content.strip():
        raise BadRow(f"{name} is empty")
    return [({"role": role, "content": content}, True)]


def from_text(row: Row) -> PlainText:
    """{"text": ...}"""
    text = as_text("text", row.get("text"))
    if not text.strip():
        raise BadRow("text is empty")
    return PlainText(text)
