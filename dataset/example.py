"""What a row becomes in any format: a conversation with the answers to learn marked, a pair of them, or plain text."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired, TypedDict

ROLES = ("system", "user", "assistant", "tool")


class Function(TypedDict):
    name: str
    arguments: dict[str, Any]


class ToolCall(TypedDict):
    type: Literal["function"]
    function: Function
    id: NotRequired[str]


class ChatMessage(TypedDict):
    """A message as chat templates take it: the arguments of a call are an object, not JSON text."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    """The assistant's reasoning before its answer."""
    tool_calls: NotRequired[list[ToolCall]]
    """Calls of the assistant."""
    tool_call_id: NotRequired[str]
    """The call that a tool's message answers."""
    name: NotRequired[str]


@dataclass(frozen=True)
class Conversation:
    messages: list[ChatMessage]
    supervised: list[bool]
    """One flag per message: whether it is learned. Learned are the assistant's messages with content, reasoning or
    calls, unless their weight is 0."""
    tools: list[dict[str, Any]] | None = None
    """Tools that the assistant may call: [{"type": "function", "function": {"name": ...}}]."""
    where: str = field(default="", compare=False)
    """Position in the file, for error messages: "row 3", or "row 3, instance 2"."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template besides messages and tools: {"enable_thinking": false}."""


@dataclass(frozen=True)
class PlainText:
    """Text that is learned from its first word to its last, without a chat template."""

    text: str
    where: str = field(default="", compare=False)
    ends: bool = True
    """True if an end-of-text token follows; false for a piece of a longer text, which the next example continues."""


@dataclass(frozen=True)
class Preference:
    """Two answers to the same prompt, of which one is better."""

    chosen: Conversation
    """The prompt and the better answer; only that is supervised."""
    rejected: Conversation
    """The same prompt and the worse answer."""
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class RatedAnswer:
    """An answer that people call good or bad."""

    conversation: Conversation
    desirable: bool
    where: str = field(default="", compare=False)


Unrated = Conversation | PlainText | Preference
"""What a format makes of a row, without the row's rating."""
Example = Unrated | RatedAnswer


def conversations_of(example: Example) -> list[Conversation]:
    """Both conversations of a pair, chosen first; none of plain text."""
    match example:
        case Preference():
            return [example.chosen, example.rejected]
        case RatedAnswer():
            return [example.conversation]
        case Conversation():
            return [example]
        case PlainText():
            return []


def rating_of(example: Example) -> bool | None:
    """Whether people call the answer good; None for an example without a rating."""
    return example.desirable if isinstance(example, RatedAnswer) else None


def with_place(example: Example, where: str) -> Example:
    """The example with its position in the file; the answers of a pair have their names in theirs."""
    match example:
        case Preference():
            chosen = replace(example.chosen, where=f"{where}, chosen")
            return Preference(chosen, replace(example.rejected, where=f"{where}, rejected"), where)
        case RatedAnswer():
            return replace(example, conversation=replace(example.conversation, where=where), where=where)
        case _:
            return replace(example, where=where)


def conversation(
    messages: list[ChatMessage], tools: list[dict[str, Any]] | None = None, left_out: frozenset[int] = frozenset()
) -> Conversation:
    """Supervises every non-empty answer, except the messages with an index in `left_out`."""
    supervised = [
        message["role"] == "assistant" and index not in left_out and has_content(message)
        for index, message in enumerate(messages)
    ]
    return Conversation(messages, supervised, tools)


def has_content(message: ChatMessage) -> bool:
    return bool(message["content"].strip() or message.get("reasoning_content") or message.get("tool_calls"))
