"""How long the examples of a file are as a model's tokens, and how many of these are learned."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from contract.failure import InputError
from contract.quote import cut
from contract.recipe import DatasetField, DatasetFormat
from dataset.document import Document
from dataset.example import Example
from dataset.read import Reading
from dataset.refusal import BadFile, BadRow
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import Tokenizer
from dataset.report import Problem

_AT_ONCE = 256
_MOST_REFUSED = 10
_NEVER = 2**31
"""Stands for the first learned token of an example that has none at any length."""
_PERCENTILES = (0, 25, 50, 75, 90, 95, 99, 100)


class Lengths(BaseModel):
    """Enough to answer for any max_length."""

    examples: int = 0
    tokens: int = 0
    """Of all their documents, uncut."""
    supervised: int = 0
    longest: Counter[int] = Counter()
    """How many examples have so many tokens, in their longest document."""
    first: Counter[int] = Counter()
    """How many examples have so many tokens before the first that is learned: at that length nothing is left."""
    refused: int = 0
    problems: list[Problem] = []
    """The first ten that the model's chat template refuses."""
    complete: bool = True
    """All of the file was measured, and not what came first of it."""


class Bucket(BaseModel):
    from_tokens: int
    to_tokens: int
    """Below it."""
    examples: int


class TokenReport(BaseModel):
    """At a max_length."""

    examples: int
    """That were measured."""
    complete: bool
    """All of the file's; else it is large, and these are its first."""
    tokens: int
    supervised_fraction: float | None
    """Of the tokens: those that are learned."""
    percentiles: dict[str, int]
    """Tokens of an example: "50" is the median, "100" the longest."""
    histogram: list[Bucket]
    max_length: int
    truncated: int
    """Examples that are cut at max_length, and still of use."""
    truncated_fraction: float | None
    dropped: int
    """Examples whose first answer begins after max_length: they are left out."""
    refused: int
    """Examples that the model's chat template refuses."""
    problems: list[Problem]


def measure(
    tokenizer: Tokenizer,
    path: Path,
    name: str,
    format: DatasetFormat | Literal["auto"] = "auto",
    columns: Mapping[DatasetField, str] | None = None,
    seconds: float = 20.0,
) -> Lengths:
    """Bad rows are passed over. Raises InputError where the model cannot write even the first example."""
    found = Lengths()
    end = time.monotonic() + seconds
    examples = _examples(Reading(path, name, format, columns or {}, None))
    while some := list(itertools.islice(examples, _AT_ONCE)):
        for each in _encoded(tokenizer, some, found):
            _count(found, each)
        if not found.examples:
            encode(tokenizer, some[:1])  # raises: the template has refused all of them
        if time.monotonic() > end:
            found.complete = next(examples, None) is None
            break
    return found


def _examples(reading: Reading) -> Iterator[Example]:
    try:
        for row in reading.rows():
            if not isinstance(row.read, BadRow):
                yield from row.read
    except BadFile:
        return


def _encoded(tokenizer: Tokenizer, some: list[Example], found: Lengths) -> list[list[Document]]:
    """Together, which is faster; one by one where the template refuses one of them."""
    try:
        return encode(tokenizer, some)
    except InputError:
        taken = []
        for example in some:
            try:
                taken += encode(tokenizer, [example])
            except InputError as error:
                found.refused += 1
                if len(found.problems) < _MOST_REFUSED:
                    found.problems.append(Problem(row=None, message=cut(error.failure.message, 500)))
        return taken


def _count(found: Lengths, documents: list[Document]) -> None:
    found.examples += 1
    found.tokens += sum(len(document.input_ids) for document in documents)
    found.supervised += sum(document.targets for document in documents)
    found.longest[max(len(document.input_ids) for document in documents)] += 1
    found.first[min((d.supervised.index(True) for d in documents if d.targets), default=_NEVER)] += 1


def token_report(found: Lengths, max_length: int) -> TokenReport:
    dropped = sum(count for first, count in found.first.items() if first >= max_length)
    longer = sum(count for length, count in found.longest.items() if length > max_length)
    # One whose first answer begins after max_length is longer than that too.
    truncated = longer - (dropped - found.first[_NEVER])
    return TokenReport(
        examples=found.examples,
        complete=found.complete,
        tokens=found.tokens,
        supervised_fraction=found.supervised / found.tokens if found.tokens else None,
        percentiles=_percentiles(found.longest),
        histogram=_histogram(found.longest),
        max_length=max_length,
        truncated=truncated,
        truncated_fraction=truncated / found.examples if found.examples else None,
        dropped=dropped,
        refused=found.refused,
        problems=found.problems,
    )


def _percentiles(lengths: Counter[int]) -> dict[str, int]:
    """The least length that so many of a hundred examples do not exceed."""
    total, told, below = lengths.total(), {}, 0
    wanted = list(_PERCENTILES)
    for length in sorted(lengths):
        below += lengths[length]
        while wanted and below >= max(1, -(-wanted[0] * total // 100)):
            told[str(wanted.pop(0))] = length
    return told


def _histogram(lengths: Counter[int]) -> list[Bucket]:
    """Buckets that double: [0, 16), [16, 32), [32, 64), ... from the first that has one to the last."""
    counts: Counter[int] = Counter()
    for length, count in lengths.items():
        counts[max(4, length.bit_length())] += count
    if not counts:
        return []
    return [
        Bucket(from_tokens=0 if bits == 4 else 1 << (bits - 1), to_tokens=1 << bits, examples=counts[bits])
        for bits in range(min(counts), max(counts) + 1)
    ]
