"""Content of typed parts: OpenAI's {"type": "text", "text": ...}, Anthropic's {"type": "thinking", "thinking": ...},
and LLaMA-Factory v1's {"type": "text" | "reasoning" | "tool_call" | "tool_result", "value": ...}."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from contract.formatting import format_value
from dataset.example import ToolCall
from dataset.fields import as_text, is_blank
from dataset.formats.tool_use import parse_calls, read_calls
from dataset.refusal import BadRow

_TEXT = ("text", "tool_result")
_THOUGHT = ("reasoning", "thinking")
_CALL = ("tool_call", "tool_calls")


class MessageContent(NamedTuple):
    text: Any
    """The text; unchanged if the content was not a list of parts, and None if no part is text."""
    thought: dict[str, Any]
    """The reasoning, as fields of a message."""
    calls: list[ToolCall]
    parts: list[Mapping[str, Any]]


def read_content(where: str, content: Any) -> MessageContent:
    """Raises BadRow for parts that are not text, reasoning or calls."""
    if not isinstance(content, list) or not content:
        return MessageContent(content, {}, [], [])
    texts, thoughts, calls = [], [], []
    for index, part in enumerate(content):
        place = f"{where}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT:
            texts.append(_text(place, part, "text"))
        elif kind in _THOUGHT:
            thoughts.append(_text(place, part, kind))
        elif kind in _CALL:
            calls += _calls(f"{place}.value", part.get("value"))
        else:
            raise BadRow(
                f'{place} must be {{"type": "text", "text": "..."}}, or one of LLaMA-Factory\'s parts text, reasoning, '
                f"tool_call and tool_result, not {format_value(part)}"
            )
    # OpenAI's parts are paragraphs; LLaMA-Factory's are pieces of one text.
    between = "" if any("value" in part for part in content) else "\n"
    thought = {"reasoning_content": "".join(thoughts)} if thoughts else {}
    return MessageContent(between.join(texts) if texts else None, thought, calls, content)


def _text(where: str, part: Mapping[str, Any], kind: str) -> str:
    given = [name for name in dict.fromkeys(("value", kind, "content")) if name in part]
    filled = [name for name in given if not is_blank(part[name])]
    if len(filled) > 1:
        raise BadRow(f"{where} has both {filled[0]} and {filled[1]}; give one of them")
    name = next(iter(filled or given), kind)
    return as_text(f"{where}.{name}", part.get(name))


def _calls(where: str, value: Any) -> list[ToolCall]:
    return parse_calls(where, value) if isinstance(value, str) else read_calls(where, [value])
