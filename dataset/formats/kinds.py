"""What the rows of a file have: one answer, a pair of answers, or an answer with a rating."""

import json
from collections.abc import Mapping, Sequence

from contract.dataset_format import DatasetField, DatasetFormat
from contract.method import Learned
from dataset.example import Example, Unrated
from dataset.fields import Row, is_blank
from dataset.formats.known_fields import refuse
from dataset.formats.preference import PAIR_NAMES
from dataset.formats.rating import rate, refuse_bad_rating, refuse_rating, shows_rating
from dataset.refusal import BadFile

PAIR_FIELDS = ("chosen", "rejected", *PAIR_NAMES)

_OTHER_METHOD = 'set method to "dpo", which learns from pairs of answers'
_BOTH = "a pair needs both chosen and rejected, in every row"


def check_kind(format: DatasetFormat, learned: Learned | None) -> None:
    """Raises BadFile if rows of a named format do not have what is learned."""
    if learned is not None and (format == "preference") != (learned == "pairs"):
        if format != "preference":
            raise BadFile(f'is read as {format}, which has no pairs of answers; set method to "sft"')
        alone = "" if learned == "ratings" else _or_alone({"completion": "chosen"})
        raise BadFile(f'is read as preference, which has pairs of answers; set method to "dpo"{alone}')
    if format == "text" and learned == "ratings":
        raise BadFile('is read as text, which has no answers to rate; set method to "sft"')


def is_decided(columns: Mapping[DatasetField, str]) -> bool:
    """Whether the recipe reads one answer of a pair as another field: then the other answer does not matter."""
    return any(column in PAIR_FIELDS and field not in ("chosen", "rejected") for field, column in columns.items())


def refuse_pair(row: Row, learned: Learned | None) -> None:
    """Raises BadRow for a field of a pair, where rows have one answer."""
    advice = _BOTH if learned is None else _OTHER_METHOD
    if learned != "ratings":
        advice += _or_alone(_better_alone(row))
    for name in PAIR_FIELDS:
        refuse(row, name, advice)


def _or_alone(columns: Mapping[str, str]) -> str:
    return f"; or learn the better answer alone, with dataset.columns {json.dumps(columns, ensure_ascii=False)}"


def _better_alone(row: Row) -> dict[str, str]:
    """The dataset.columns that read the better answer as that of a format with one."""
    named = (name for name in PAIR_FIELDS if PAIR_NAMES.get(name, name) == "chosen")
    better = next((name for name in named if not is_blank(row.get(name))), "chosen")
    value = row.get(better)
    first = value[0] if isinstance(value, list) and value else None
    is_whole = isinstance(first, dict) and first.get("role") in ("system", "user")
    return {"messages" if is_whole else "completion": better}


def kind_of(format: DatasetFormat, row: Row) -> Learned:
    """What a first row has."""
    if format == "preference":
        return "pairs"
    return "ratings" if shows_rating(format, row) else "answers"


def as_kind(learned: Learned, format: DatasetFormat, row: Row, examples: Sequence[Unrated]) -> Sequence[Example]:
    """The row's examples with their rating, if ratings are learned. Raises BadRow for a rating that contradicts what is
    learned."""
    if learned == "ratings":
        return rate(row, examples)
    if learned == "pairs":
        refuse_rating(row)
    else:
        refuse_bad_rating(format, row)
    return examples
