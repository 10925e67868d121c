"""What a row becomes, whatever its format: a conversation with the answers to learn marked, or plain text."""

from dataclasses import dataclass, field
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
    """As chat templates take it: a call's arguments are an object, not its JSON text."""

    role: str
    content: str
    reasoning_content: NotRequired[str]
    """An assistant's: what it thinks before it answers."""
    tool_calls: NotRequired[list[ToolCall]]
    """An assistant's."""
    tool_call_id: NotRequired[str]
    """A tool's: the call that it answers."""
    name: NotRequired[str]


@dataclass(frozen=True)
class Conversation:
    messages: list[ChatMessage]
    supervised: list[bool]
    """For each message whether it is learned: an answer that says, thinks or calls something and has no weight of 0."""
    tools: list[dict[str, Any]] | None = None
    """What the assistant may call: [{"type": "function", "function": {"name": ...}}]."""
    where: str = field(default="", compare=False)
    """Its place in the file, for messages: "row 3", or "row 3, instance 2"."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """For the chat template, beside messages and tools: {"enable_thinking": false}."""


@dataclass(frozen=True)
class PlainText:
    """Learned from its first word to its last, without a chat template."""

    text: str
    where: str = field(default="", compare=False)
    ends: bool = True
    """The end of text comes after it. False of a piece of a longer text: the next example goes on with it."""


Example = Conversation | PlainText


def conversation(
    messages: list[ChatMessage], tools: list[dict[str, Any]] | None = None, left_out: frozenset[int] = frozenset()
) -> Conversation:
    """Supervises every answer that is not empty, but for the messages with an index in `left_out`."""
    supervised = [
        message["role"] == "assistant" and index not in left_out and has_content(message)
        for index, message in enumerate(messages)
    ]
    return Conversation(messages, supervised, tools)


def has_content(message: ChatMessage) -> bool:
    return bool(message["content"].strip() or message.get("reasoning_content") or message.get("tool_calls"))
