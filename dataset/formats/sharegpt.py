"""ShareGPT's format: {"conversations": [{"from": "human", "value": "..."}, ...]}, optionally with "system" and
"tools".

Some public datasets have shorter turns: LIMA and UltraChat texts that alternate, Capybara and XTuner {"input": ...,
"output": ...}, and Firefly {"human": ..., "assistant": ...}.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from contract.formatting import format_value
from dataset.example import ChatMessage, Conversation
from dataset.fields import Row, as_list, as_text, is_blank, optional_text
from dataset.formats.tool_use import parse_calls, read_tools
from dataset.formats.turns import TURN_FIELDS, Turn, as_conversation, check_turn, is_learned, read_reasoning
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


_PAIRS = (("input", "output"), ("human", "assistant"))
"""Names of a question and its answer where one object has both."""


def has_short_turns(value: Any) -> bool:
    """Whether a column has the turns of LIMA, Capybara or Firefly."""
    return isinstance(value, list) and bool(value) and (_alternates(value) or all(map(_pair_names, value)))


def known_in_turn(turn: Mapping[str, Any]) -> Collection[str]:
    """All fields of a turn or of a message that are read or refused."""
    return {*TURN_FIELDS, "system", *names} if (names := _pair_names(turn)) else TURN_FIELDS


def from_sharegpt(row: Row) -> Conversation:
    turns = read_turns("conversations", row.get("conversations"))
    found = as_conversation(turns, optional_text(row, "system"), read_tools(row.get("tools")))
    if not any(found.supervised):
        raise NoAnswer("has no answer: no turn from gpt or function_call with a value and no weight of 0")
    return found


def read_turns(name: str, value: Any) -> list[Turn]:
    """The turns in a list, or in its JSON text."""
    return [_turn(where, turn) for where, turn in _whole_turns(name, as_list(name, value, "turn"))]


def _alternates(given: list[Any]) -> bool:
    return len(given) > 1 and all(isinstance(text, str) for text in given)


def _pair_names(turn: Any) -> tuple[str, str] | None:
    is_pair = isinstance(turn, dict) and not turn.keys() & {"from", "role"}
    return next((names for names in _PAIRS if is_pair and turn.keys() >= set(names)), None)


def _whole_turns(name: str, given: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each turn with from and value, and its place in the row."""
    texts_alternate = _alternates(given)
    for index, turn in enumerate(given):
        where = f"{name}[{index}]"
        if texts_alternate:
            yield where, {"from": ("human", "gpt")[index % 2], "value": turn}
        elif names := _pair_names(turn):
            question, answer = names
            if not is_blank(turn.get("system")):
                yield f"{where}.system", {"from": "system", "value": turn["system"]}
            yield f"{where}.{question}", {"from": "human", "value": turn[question]}
            more = {name: value for name, value in turn.items() if name in TURN_FIELDS}
            yield f"{where}.{answer}", {**more, "from": "gpt", "value": turn[answer]}
        else:
            yield where, turn


def _turn(where: str, turn: Any) -> Turn:
    if not isinstance(turn, dict):
        raise BadRow(f"{where} must be an object with from and value, not {format_value(turn)}")
    if "role" in turn and "from" not in turn:
        raise BadRow(
            f"{where} has a role, as OpenAI's messages have; say so: dataset.format "
            '"messages" and dataset.columns {"messages": "conversations"}'
        )
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise BadRow(f"{where}.from is {format_value(speaker)}; use one of {', '.join(SPEAKERS)}")
    check_turn(where, turn)
    if not is_blank(turn.get("tool_calls")):
        raise BadRow(f"{where}.tool_calls: give calls as a turn from function_call")
    message = _message(where, speaker, turn)
    return message, is_learned(where, message["role"], turn)


def _message(where: str, speaker: str, turn: dict[str, Any]) -> ChatMessage:
    value = as_text(f"{where}.value", turn.get("value"))
    message: ChatMessage = {"role": SPEAKERS[speaker], "content": value}
    if speaker == "function_call":
        message |= {"content": "", "tool_calls": parse_calls(f"{where}.value", value)}
    if thought := read_reasoning(f"{where}.", turn):
        if message["role"] != "assistant":
            raise BadRow(f"{where}.reasoning_content belongs to an assistant, not to {speaker}")
        message["reasoning_content"] = thought
    if not is_blank(turn.get("name")):
        message["name"] = as_text(f"{where}.name", turn["name"])
    return message
