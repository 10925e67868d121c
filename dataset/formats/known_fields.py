"""Fields that known formats give a meaning to, besides those that the row's own format reads.

Each is honoured, or its row is refused by name, since ignoring it would change what is learned. A field that is neither
here nor in formats/turns.py is unused, and the report lists it. docs/data.md has the tables for users.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from contract.dataset_format import DatasetFormat
from contract.formatting import format_value, truncate
from contract.method import Learned
from dataset.example import Conversation, PlainText, Preference, Unrated, conversations_of
from dataset.fields import Row, is_blank, parse_text
from dataset.formats.rating import as_rating
from dataset.formats.sharegpt import known_in_turn
from dataset.formats.template_arguments import read_arguments
from dataset.formats.turns import MEDIA, NO_MEDIA, WEIGHTS, read_reasoning
from dataset.refusal import BadRow

_PLACEHOLDERS = ("<image>", "<video>", "<audio>")
_AS_ARGUMENT = "give it in chat_template_kwargs"
_NO_TOKENS = "text is tokenised here; give the text, and leave out tokens and their masks"

IN_ANY_ROW: Mapping[str, str] = {
    **dict.fromkeys(MEDIA, NO_MEDIA),
    **dict.fromkeys(("input_ids", "completion_mask", "assistant_masks", "loss_mask"), _NO_TOKENS),
    "chat_template": "a row cannot bring its own template; name one in the recipe's dataset.chat_template",
}
"""Fields that are refused in any row, with what to do instead."""

_ANSWERS_ALONE = "only answers are learned; give what else is to be learned as text"
SETTINGS: Mapping[str, str] = {
    **dict.fromkeys(("train_on_input", "train_on_inputs", "train_on_prompt"), _ANSWERS_ALONE),
    "mask_history": "give the earlier answers a weight of 0",
    "split_special_tokens": "special tokens in a text are read as such",
}
"""Settings of other trainers that change what is learned. They are refused in any row unless false, which is what
happens here."""

BESIDE_MESSAGES: Mapping[str, str] = {
    "functions": "OpenAI has replaced them; give them as tools",
    "documents": "the chat template gets no documents; write them into a message",
    "objects": NO_MEDIA,
    "mask": "give each message a weight of 0 or 1 instead",
    "reasoning_content": "put it into the message that it belongs to",
    "thinking": "put it into the message that it belongs to",
    "enable_thinking": _AS_ARGUMENT,
    "reasoning_effort": _AS_ARGUMENT,
}
"""Fields that are refused beside messages, conversations, or prompt and completion. In other rows they are ordinary
columns."""

TOOL_CHOICES = ("tool_choice", "function_call")
"""Fields that are refused beside messages unless they are "auto"."""

ROW_THOUGHTS = ("reasoning_content", "thinking")
"""Fields with the answer's reasoning, beside a question and its answer."""

_SAMPLE_WEIGHTS = ("weight", "loss_weight", "loss_scale")
_LEARNED = ("1", "1.0", "true")
_NOT_LEARNED = ("0", "0.0", "false")

_REFUSED_OR_WEIGHTS = frozenset({*IN_ANY_ROW, *WEIGHTS, *SETTINGS})
_OF_SOME_FORMATS = frozenset({*BESIDE_MESSAGES, *TOOL_CHOICES, *_SAMPLE_WEIGHTS, "history"})


def refuse_fields(row: Row) -> None:
    """Raises BadRow for fields that no format supports."""
    if row.keys().isdisjoint(_REFUSED_OR_WEIGHTS):
        return
    for name, advice in IN_ANY_ROW.items():
        refuse(row, name, advice)
    for name, advice in SETTINGS.items():
        if _normalized(row.get(name)) not in (*_NOT_LEARNED, "none"):
            refuse(row, name, advice)
    for name in WEIGHTS:
        if _normalized(row.get(name)) in _NOT_LEARNED:
            raise BadRow(f"{name} is {format_value(row[name])}, and every row is learned; leave the row out")


def check_row(format: DatasetFormat, read: Collection[str], row: Row) -> None:
    """Raises BadRow for fields that a row of this format cannot have. `read` are the fields that the format reads."""
    if row.keys().isdisjoint(_OF_SOME_FORMATS):
        return
    if _is_beside_messages(format, row):
        for name, advice in BESIDE_MESSAGES.items():
            if not (name in ROW_THOUGHTS and _has_one_answer(format, row)):
                refuse(row, name, advice)
        for name in TOOL_CHOICES:
            if row.get(name) != "auto":
                refuse(row, name, "the chat template gets no choice of tools; leave it out")
        for name in _SAMPLE_WEIGHTS:
            if not is_blank(row.get(name)) and _normalized(row[name]) not in _LEARNED:
                raise BadRow(
                    f"{name} is {format_value(row[name])}, and every row weighs 1; leave it out, or the whole row"
                )
    if format != "text" and "history" not in read:
        refuse(row, "history", "rows of this format have none; give the whole conversation as messages")


def apply_extra_fields(format: DatasetFormat, row: Row, example: Unrated) -> Unrated:
    """The example with what further fields say about it. Raises BadRow."""
    arguments = read_arguments(row.get("chat_template_kwargs"))
    if not row.keys().isdisjoint(MEDIA):
        _check_no_placeholder(example)
    if isinstance(example, PlainText):
        if arguments:
            raise BadRow("chat_template_kwargs are for a chat template, and none writes text; leave them out")
        return example
    if isinstance(example, Preference):
        chosen, rejected = (_with_arguments(row, each, arguments) for each in (example.chosen, example.rejected))
        return replace(example, chosen=chosen, rejected=rejected)
    if _has_one_answer(format, row) and (thought := read_reasoning("", row, ROW_THOUGHTS)):
        example.messages[-1]["reasoning_content"] = thought
    return _with_arguments(row, example, arguments)


def _with_arguments(row: Row, example: Conversation, arguments: dict[str, Any]) -> Conversation:
    if row.get("parallel_tool_calls") is False and any(len(m.get("tool_calls", [])) > 1 for m in example.messages):
        raise BadRow("parallel_tool_calls is false, and a message has several calls; give each a message of its own")
    return replace(example, template_arguments=arguments) if arguments else example


def unused_fields(
    format: DatasetFormat, read: Collection[str], row: Row, learned: Learned | None = None
) -> Iterator[str]:
    """The non-empty fields of a row and of its messages that nothing reads."""
    known = {*read, *SETTINGS, "kto_tag", "chat_template_kwargs"}
    if _is_beside_messages(format, row):
        known |= {"parallel_tool_calls", *TOOL_CHOICES, *_SAMPLE_WEIGHTS}
    if format != "text" and as_rating("label", row.get("label"), learned) is not None:
        known.add("label")
    if _has_one_answer(format, row):
        known |= set(ROW_THOUGHTS)
    yield from _filled_fields(row, known)
    for name in ("messages", "conversations", "prompt", "completion", "chosen", "rejected"):
        turns = [row[name]] if isinstance(row.get(name), dict) else row.get(name)
        if isinstance(turns, str) and name in ("messages", "conversations"):
            turns = parse_text(name, turns)
        if name in read and isinstance(turns, list):
            said = {
                key for turn in turns if isinstance(turn, dict) for key in _filled_fields(turn, known_in_turn(turn))
            }
            yield from (f"{name}[].{key}" for key in sorted(said))


def _filled_fields(fields: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    return (truncate(str(name), 40) for name, value in fields.items() if name not in known and not is_blank(value))


def _is_beside_messages(format: DatasetFormat, row: Row) -> bool:
    return format in ("preference", "messages", "sharegpt", "prompt_completion") or "conversations" in row


def _has_one_answer(format: DatasetFormat, row: Row) -> bool:
    """True if the answer is a text in its own column, and not a message with fields of its own."""
    if format == "prompt_completion":
        return isinstance(row.get("completion"), str)
    return format == "alpaca" or (format == "belle" and "conversations" not in row)


def refuse(row: Row, name: str, advice: str) -> None:
    if not is_blank(row.get(name)):
        raise BadRow(f"{name} is {format_value(row[name])}; {advice}")


def _normalized(weight: Any) -> str:
    """The value as a lower-case word, since CSV has only words for numbers and truth values."""
    return str(weight).strip().lower()


def _check_no_placeholder(example: Unrated) -> None:
    texts = [message["content"] for each in conversations_of(example) for message in each.messages]
    texts += [example.text] if isinstance(example, PlainText) else []
    for placeholder in _PLACEHOLDERS:
        if any(placeholder in text for text in texts):
            raise BadRow(f"a text has {placeholder}, and {NO_MEDIA}")
