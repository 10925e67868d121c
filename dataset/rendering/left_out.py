"""Refuses an example of which the model's chat template would leave something out."""

from collections.abc import Iterable

from dataset.example import ChatMessage, Conversation
from dataset.rendering.apply_template import apply_template, refuse_model, render_without
from dataset.rendering.template_variables import unread_arguments
from dataset.rendering.tokenizer import Tokenizer

_WITH_THOUGHTS = (
    "use a model whose template writes thoughts, or write them into the content as the model does, such as "
    '"<think>...</think>"'
)

_WITH_TOOLS = 'set dataset.chat_template to "chatml", use a model that calls tools, or leave such rows out'


def check_is_written(tokenizer: Tokenizer, example: Conversation, whole: str, places: Iterable[int]) -> None:
    """Checks that the template leaves out nothing of the messages at these places, nor the tools and arguments."""
    places = list(places)
    _check_arguments_are_read(tokenizer, example)
    _check_system_is_written(tokenizer, example, whole, places)
    _check_tools_are_written(tokenizer, example, whole, places)


def last_of_each_kind(messages: list[ChatMessage]) -> list[int]:
    """The places of messages that stand for the others: a template writes all of a kind, or none."""
    last: dict[tuple[object, ...], int] = {}
    for index, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            last["calls", len(calls) > 1, message["content"].strip() != ""] = index
        else:
            last[message["role"], messages[index - 1]["role"] if index > 0 else None] = index
    return sorted(last.values())


def _check_arguments_are_read(tokenizer: Tokenizer, example: Conversation) -> None:
    ignored = unread_arguments(tokenizer.chat_template, example.template_arguments)
    if ignored:
        refuse_model(
            example, f"has no use for {', '.join(ignored)} of chat_template_kwargs; leave it out, or use another model"
        )


def _check_system_is_written(tokenizer: Tokenizer, example: Conversation, whole: str, places: Iterable[int]) -> None:
    for index in places:
        message = example.messages[index]
        # A default system message may have the same words.
        if message["role"] != "system" or message["content"].strip() in whole:
            continue
        if whole == render_without(tokenizer, example, [*example.messages[:index], *example.messages[index + 1 :]]):
            refuse_model(
                example,
                f"leaves out the system message messages[{index}]; write it into the first question, or name another "
                "template in dataset.chat_template",
            )


def _check_tools_are_written(tokenizer: Tokenizer, example: Conversation, whole: str, places: Iterable[int]) -> None:
    """Many templates omit what they do not know, and the model would learn to say nothing."""
    if example.tools and whole == render_without(tokenizer, example, example.messages, with_tools=False):
        refuse_model(example, f"leaves out the tools; {_WITH_TOOLS}")
    for index in places:
        earlier, message, until = example.messages[:index], example.messages[index], example.messages[: index + 1]
        if message.get("tool_calls"):
            _check_calls_are_written(tokenizer, example, index)
        elif message["role"] == "tool" and (
            apply_template(tokenizer, example, until) == render_without(tokenizer, example, earlier)
        ):
            refuse_model(example, f"leaves out what the tool says in messages[{index}]; {_WITH_TOOLS}")


def _check_calls_are_written(tokenizer: Tokenizer, example: Conversation, index: int) -> None:
    earlier, message = example.messages[:index], example.messages[index]
    written = apply_template(tokenizer, example, [*earlier, message])
    bare = message.copy()
    del bare["tool_calls"]
    if written == render_without(tokenizer, example, [*earlier, bare]):
        refuse_model(example, f"leaves out the calls of messages[{index}]; {_WITH_TOOLS}")
    first: ChatMessage = {**message, "tool_calls": message["tool_calls"][:1]}
    if first != message and written == render_without(tokenizer, example, [*earlier, first]):
        refuse_model(
            example,
            f"leaves out calls of messages[{index}] after the first; give each a message of its own, with what the "
            "tool gives back after it",
        )
    silent: ChatMessage = {**message, "content": ""}
    if message["content"].strip() and written == render_without(tokenizer, example, [*earlier, silent]):
        refuse_model(
            example,
            f"leaves out the content of messages[{index}], beside its calls; leave it out of the row, or set "
            'dataset.chat_template to "chatml"',
        )


def check_turn_is_written(tokenizer: Tokenizer, example: Conversation, index: int, text: str) -> None:
    """Raises InputError if the answer messages[index], or the question before it, has no effect on the text."""
    questions = [number for number in range(index) if example.messages[number]["role"] == "user"]
    for number in (index, *questions[-1:]):
        message = example.messages[number]
        content = message["content"].strip()
        if content in text:
            continue
        other: ChatMessage = {**message, "content": "b" if content == "a" else "a"}
        changed = [*example.messages[:number], other, *example.messages[number + 1 : index + 1]]
        if text == render_without(tokenizer, example, changed):
            refuse_model(
                example,
                f"leaves out the content of messages[{number}]; name another template in dataset.chat_template, or use "
                "another model",
            )


def check_thought_is_written(example: Conversation, index: int, learned: str) -> None:
    """Many templates deliberately omit an earlier turn's reasoning from later texts. They must not omit it from the
    text in which its own answer is learned."""
    if not has_thought(example.messages[index], learned):
        refuse_model(example, f"leaves out reasoning_content of messages[{index}]; {_WITH_THOUGHTS}")
    content = example.messages[index]["content"].lstrip()
    if content.startswith("<think>") and learned.count("</think>") > content.count("</think>"):
        refuse_model(
            example,
            f"writes a thought of its own before the one in the content; give what messages[{index}] thinks as "
            "reasoning_content",
        )


def has_thought(message: ChatMessage, learned: str) -> bool:
    """Looks only before the content, which may contain the same words."""
    content = message["content"].strip()
    before, said, _ = learned.rpartition(content) if content else (learned, "", "")
    return thought_of(message) in (before if said else learned)


def thought_of(message: ChatMessage) -> str:
    return message.get("reasoning_content", "").strip()
