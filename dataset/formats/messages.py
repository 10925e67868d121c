"""OpenAI's: {"messages": [{"role": "user", "content": "..."}, ...]} and, where wanted, "tools".

Other fields of a row or a message are passed over, but for those that would change what is learned: these are refused.
"""

from typing import Any

from contract.quote import quote
from dataset.example import ROLES, Conversation, Message, conversation
from dataset.fields import Row, as_list, as_text
from dataset.formats.tool_use import read_calls, read_tools
from dataset.refusal import BadRow, NoAnswer


def from_messages(row: Row) -> Conversation:
    if row.get("functions"):
        raise BadRow("functions are OpenAI's old way; give them as tools")
    messages, left_out = read_messages("messages", row.get("messages"))
    found = conversation(messages, read_tools(row.get("tools")), left_out)
    if not any(found.supervised):
        why = "each has weight 0" if left_out else "no message of role assistant with content or tool_calls"
        raise NoAnswer(f"has no answer to learn: {why}")
    return found


def read_messages(where: str, value: Any) -> tuple[list[Message], frozenset[int]]:
    """The messages of a list or of its JSON text, and the indices of those of weight 0."""
    given = as_list(where, value, "message")
    messages = [_message(f"{where}[{index}]", message) for index, message in enumerate(given)]
    return messages, frozenset(i for i, message in enumerate(given) if message.get("weight") == 0)


def _message(where: str, given: Any) -> Message:
    if not isinstance(given, dict):
        raise BadRow(f"{where} must be an object with role and content, not {quote(given)}")
    # OpenAI's name for system since its models reason.
    role = "system" if given.get("role") == "developer" else given.get("role")
    if role not in ROLES:
        raise BadRow(f"{where}.role is {quote(role)}; use one of {', '.join(ROLES)}")
    if given.get("function_call"):
        raise BadRow(f"{where}.function_call is OpenAI's old way; give it as tool_calls")
    if role == "assistant" and given.get("weight") not in (None, 0, 1):
        raise BadRow(f"{where}.weight is {quote(given['weight'])}; 1 learns an answer, 0 does not")
    calls = read_calls(f"{where}.tool_calls", given.get("tool_calls"))
    if calls and role != "assistant":
        raise BadRow(f"{where}.tool_calls belong to an assistant, not to role {role}")
    content = _joined(f"{where}.content", given.get("content"))
    message: Message = {
        "role": role,
        "content": "" if calls and content is None else as_text(f"{where}.content", content),
    }
    if calls:
        message["tool_calls"] = calls
    if role == "tool":
        if given.get("tool_call_id") is not None:
            message["tool_call_id"] = as_text(f"{where}.tool_call_id", given["tool_call_id"])
        if given.get("name") is not None:
            message["name"] = as_text(f"{where}.name", given["name"])
    return message


def _joined(where: str, content: Any) -> Any:
    """The text parts that OpenAI takes in place of a text, a line each."""
    if not isinstance(content, list) or not content:
        return content
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise BadRow(f'{where}[{index}] must be {{"type": "text", "text": "..."}}, not {quote(part)}')
    return "\n".join(as_text(f"{where}[{index}].text", part.get("text")) for index, part in enumerate(content))
