"""KTO's ratings: whether people call the answer of a row good, in its field label or kto_tag."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from contract.dataset_format import DatasetFormat
from contract.formatting import format_value
from contract.method import Learned
from dataset.example import Conversation, Example, RatedAnswer, Unrated
from dataset.fields import Row, is_blank
from dataset.refusal import BadRow

_NAMES = ("label", "kto_tag")
_WORDS = {"true": True, "false": False}
_NUMBERS = {"1": True, "1.0": True, "0": False, "0.0": False}


def as_rating(name: str, value: Any, learned: Learned | None) -> bool | None:
    """A rating as a truth value; None if it is none. CSV has only words. A label of 0 or 1 is mostly a class, so it is
    a rating only where ratings are learned."""
    words = _WORDS | _NUMBERS if name == "kto_tag" or learned == "ratings" else _WORDS
    return words.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None


def shows_rating(format: DatasetFormat, row: Row) -> bool:
    """Whether a first row has a rating."""
    return format != "text" and any(as_rating(name, row.get(name), None) is not None for name in _NAMES)


def refuse_bad_rating(format: DatasetFormat, row: Row) -> None:
    """Raises BadRow if an answer that is about to be learned is rated as bad. A label beside plain text is no
    rating."""
    if row.keys().isdisjoint(_NAMES):
        return
    for name in _NAMES:
        if not (format == "text" and name == "label") and as_rating(name, row.get(name), "answers") is False:
            raise BadRow(
                f"{name} is {format_value(row[name])}: the answer is rated as a bad one, and would be learned; leave "
                'such rows out, or set method to "kto", which learns from ratings'
            )


def refuse_rating(row: Row) -> None:
    """Raises BadRow if a pair of answers has a rating, which is one of one answer."""
    for name in _NAMES:
        if as_rating(name, row.get(name), "pairs") is not None:
            raise BadRow(
                f"{name} is {format_value(row[name])}, which rates one answer, and the row has two; leave it out"
            )


def rate(row: Row, examples: Sequence[Unrated]) -> list[Example]:
    """The row's example with its rating. Raises BadRow."""
    desirable = _read_rating(row)
    if len(examples) != 1:
        raise BadRow(f"has one rating and {len(examples)} examples; give each a row of its own")
    (example,) = examples
    if not isinstance(example, Conversation):
        raise BadRow("is plain text, and a rating is one of an answer; give prompt, completion and label")
    return [RatedAnswer(_last_answer_alone(example), desirable, example.where)]


def _read_rating(row: Row) -> bool:
    given = {name: row[name] for name in _NAMES if not is_blank(row.get(name))}
    if not given:
        raise BadRow('has no rating; give label, true or false, in every row, or set method to "sft"')
    ratings = {name: as_rating(name, value, "ratings") for name, value in given.items()}
    for name, rating in ratings.items():
        if rating is None:
            raise BadRow(f"{name} is {format_value(given[name])}; a rating is true or false")
    if len({*ratings.values()}) > 1:
        raise BadRow("label and kto_tag differ; keep the one that is right")
    return bool(ratings.popitem()[1])


def _last_answer_alone(example: Conversation) -> Conversation:
    """A rating is one of what the assistant says after the last question."""
    last = max(index for index, learned in enumerate(example.supervised) if learned)
    question = max((index for index in range(last) if example.messages[index]["role"] == "user"), default=-1)
    return replace(
        example, supervised=[learned and index > question for index, learned in enumerate(example.supervised)]
    )
