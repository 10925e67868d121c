"""The formats, and how a row's format is detected."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from contract.dataset_format import DatasetFormat
from contract.formatting import truncate
from dataset.example import Unrated
from dataset.fields import Row, list_names
from dataset.formats.alpaca import from_alpaca, from_belle, from_chinese_vicuna, from_self_instruct
from dataset.formats.completion import from_prompt_completion, from_text
from dataset.formats.messages import from_messages
from dataset.formats.preference import PROMPTS, from_preference, has_pair, unpack_row
from dataset.formats.sharegpt import from_sharegpt
from dataset.refusal import BadRow


@dataclass(frozen=True)
class Format:
    read: Callable[[Row], Unrated | Sequence[Unrated]]
    shape: Callable[[Row], bool]
    """Whether a row looks like this format."""
    fields: frozenset[str]
    """All fields that the format reads."""
    unpack: Callable[[Row], Row] = lambda row: row
    """The row with all its fields at the top."""


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(name in row for name in names)


def _has_lists(row: Row) -> bool:
    return isinstance(row.get("input"), list) and isinstance(row.get("output"), list)


FORMATS: Mapping[DatasetFormat, Format] = {
    "preference": Format(
        from_preference,
        has_pair,
        frozenset({*PROMPTS, "chosen", "rejected", "system", "tools", "history"}),
        unpack_row,
    ),
    "messages": Format(from_messages, _has("messages"), frozenset({"messages", "system", "tools"})),
    "sharegpt": Format(from_sharegpt, _has("conversations"), frozenset({"conversations", "system", "tools"})),
    "self_instruct": Format(
        from_self_instruct, _has("instruction", "instances"), frozenset({"instruction", "instances", "system", "tools"})
    ),
    "alpaca": Format(
        from_alpaca, _has("instruction"), frozenset({"instruction", "input", "output", "system", "tools", "history"})
    ),
    "prompt_completion": Format(
        from_prompt_completion, _has("prompt", "completion"), frozenset({"prompt", "completion", "system", "tools"})
    ),
    "belle": Format(
        from_belle,
        _has("input", "target"),
        frozenset({"input", "target", "conversations", "system", "tools"}),
    ),
    "chinese_vicuna": Format(from_chinese_vicuna, _has_lists, frozenset({"input", "output", "system", "tools"})),
    "text": Format(from_text, _has("text"), frozenset({"text"})),
}
"""In the order in which they are tried."""


def detect(row: Row, named: Collection[str] = (), pairs: bool = True) -> DatasetFormat:
    """The first format whose shape the row has, preferably one that reads all `named` fields; without `pairs` none that
    has pairs of answers. Raises BadRow."""
    # Parquet writes null for a column that only other rows have.
    filled = {name: value for name, value in row.items() if value is not None}
    formats = {name: format for name, format in FORMATS.items() if pairs or name != "preference"}
    shaped = [name for name, format in formats.items() if format.shape(filled)]
    shaped = shaped or [name for name, format in formats.items() if format.shape(row)]
    if not shaped:
        raise BadRow(_no_format(row))
    return next((name for name in shaped if FORMATS[name].fields.issuperset(named)), shaped[0])


def _no_format(row: Row) -> str:
    inside = next((name for name, value in row.items() if isinstance(value, list) and value), None)
    if inside is not None and isinstance(row[inside][0], dict):
        return _no_format_but_a_list(truncate(inside, 40), row[inside][0])
    columns = json.dumps({"instruction": "COLUMN", "output": "COLUMN"})
    return (
        f"has the fields {list_names(row)}, of no known format; give messages (a list), or instruction and output, "
        f"or say which column is which, as dataset.columns {columns}"
    )


def _no_format_but_a_list(name: str, first: Row) -> str:
    found = f"has no fields of a format, and a list of objects, {name}"
    for field, names in (("messages", {"role", "content"}), ("conversations", {"from", "value"})):
        if names <= first.keys():
            columns = json.dumps({field: name}, ensure_ascii=False)
            return f"{found}; if these are the turns of a conversation, say so, as dataset.columns {columns}"
    return (
        f"{found}; if these are the turns of a conversation, give each a role and a content, and name the list "
        f"messages; if these are the rows, write each on a line of its own, as jq -c '.\"{name}\"[]' FILE does"
    )
