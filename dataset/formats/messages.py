"""OpenAI's format: {"messages": [{"role": "user", "content": "..."}, ...]}, optionally with "tools" and "system".

LLaMA-Factory v1's is the same with content of typed parts; see dataset/formats/parts.py.
"""

from typing import Any

from contract.formatting import format_value
from dataset.example import ROLES, ChatMessage, Conversation
from dataset.fields import Row, as_list, as_text, is_blank, optional_text
from dataset.formats.parts import MessageContent, read_content
from dataset.formats.tool_use import read_calls, read_tools
from dataset.formats.turns import Turn, as_conversation, check_turn, is_learned, read_reasoning
from dataset.refusal import BadRow, NoAnswer


def from_messages(row: Row) -> Conversation:
    turns = read_messages("messages", row.get("messages"))
    found = as_conversation(turns, optional_text(row, "system"), read_tools(row.get("tools")))
    if not any(found.supervised):
        left_out = any(message["role"] == "assistant" and not learned for message, learned in turns)
        why = "each has weight 0" if left_out else "no message of role assistant with content or tool_calls"
        raise NoAnswer(f"has no answer to learn: {why}")
    return found


def read_messages(where: str, value: Any) -> list[Turn]:
    """The messages in a list, or in its JSON text."""
    return [_turn(f"{where}[{index}]", given) for index, given in enumerate(as_list(where, value, "message"))]


def _turn(where: str, given: Any) -> Turn:
    if not isinstance(given, dict):
        raise BadRow(f"{where} must be an object with role and content, not {format_value(given)}")
    if "from" in given and "role" not in given:
        raise BadRow(
            f"{where} has a from, as ShareGPT's turns have; say so: dataset.format "
            '"sharegpt" and dataset.columns {"conversations": "messages"}'
        )
    # OpenAI's reasoning models call the system message developer.
    role = "system" if given.get("role") == "developer" else given.get("role")
    if role not in ROLES:
        raise BadRow(f"{where}.role is {format_value(role)}; use one of {', '.join(ROLES)}")
    check_turn(where, given)
    content = read_content(f"{where}.content", given.get("content"))
    message = _message(where, role, given, content)
    return message, is_learned(where, role, given, content.parts)


def _message(where: str, role: str, given: dict[str, Any], content: MessageContent) -> ChatMessage:
    thought = read_reasoning(f"{where}.", given | content.thought if content.thought else given)
    calls = [*content.calls, *read_calls(f"{where}.tool_calls", given.get("tool_calls"))]
    if role != "assistant" and calls:
        raise BadRow(f"{where}.tool_calls belong to an assistant, not to role {role}")
    if role != "assistant" and thought:
        raise BadRow(f"{where}.reasoning_content belongs to an assistant, not to role {role}")
    text = "" if (calls or thought) and content.text is None else content.text
    message: ChatMessage = {"role": role, "content": as_text(f"{where}.content", text)}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    if role == "tool" and given.get("tool_call_id") is not None:
        message["tool_call_id"] = as_text(f"{where}.tool_call_id", given["tool_call_id"])
    if not is_blank(given.get("name")):
        message["name"] = as_text(f"{where}.name", given["name"])
    return message
