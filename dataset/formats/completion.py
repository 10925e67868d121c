"""A prompt and its completion, and text that is neither."""

from typing import Any

from dataset.example import Conversation, Message, PlainText, conversation
from dataset.fields import Row, as_text
from dataset.formats.messages import read_messages
from dataset.formats.tool_use import read_tools
from dataset.refusal import BadRow, NoAnswer


def from_prompt_completion(row: Row) -> Conversation:
    """{"prompt": ..., "completion": ...}, each a text or a list of messages. Answers in the prompt are not learned."""
    prompt, _ = _messages("prompt", row.get("prompt"), "user")
    completion, left_out = _messages("completion", row.get("completion"), "assistant")
    given = frozenset(range(len(prompt)))
    found = conversation(prompt + completion, read_tools(row.get("tools")), given | {len(prompt) + i for i in left_out})
    if not any(found.supervised):
        raise NoAnswer("has no answer: no message of completion is an assistant's with a weight other than 0")
    return found


def _messages(name: str, value: Any, role: str) -> tuple[list[Message], frozenset[int]]:
    if isinstance(value, list):
        return read_messages(name, value)
    content = as_text(name, value)
    if not content.strip():
        raise BadRow(f"{name} is empty")
    return [{"role": role, "content": content}], frozenset()


def from_text(row: Row) -> PlainText:
    """{"text": ...}"""
    text = as_text("text", row.get("text"))
    if not text.strip():
        raise BadRow("text is empty")
    return PlainText(text)
