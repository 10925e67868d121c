"""ShareGPT's: {"conversations": [{"from": "human", "value": "..."}, ...]} and, where wanted, "system" and "tools"."""

from typing import Any

from contract.quote import quote
from dataset.example import Conversation, Message, conversation
from dataset.fields import Row, as_list, as_text, optional_text
from dataset.formats.tool_use import parse_calls, read_tools
from dataset.refusal import BadRow, NoAnswer

SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def from_sharegpt(row: Row) -> Conversation:
    turns = as_list("conversations", row.get("conversations"), "turn")
    messages = [_message(f"conversations[{index}]", turn) for index, turn in enumerate(turns)]
    if system := optional_text(row, "system"):
        messages.insert(0, {"role": "system", "content": system})
    found = conversation(messages, read_tools(row.get("tools")))
    if not any(found.supervised):
        raise NoAnswer("has no answer: no turn from gpt or function_call with a value")
    return found


def _message(where: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise BadRow(f"{where} must be an object with from and value, not {quote(turn)}")
    if "role" in turn and "from" not in turn:
        raise BadRow(
            f"{where} has a role, as OpenAI's messages have; say so in the recipe: dataset.format "
            '"messages" and dataset.columns {"messages": "conversations"}'
        )
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise BadRow(f"{where}.from is {quote(speaker)}; use one of {', '.join(SPEAKERS)}")
    value = as_text(f"{where}.value", turn.get("value"))
    if speaker == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": parse_calls(f"{where}.value", value)}
    return {"role": SPEAKERS[speaker], "content": value}
