"""Token counts of a file's examples under a model's tokenizer, and how many of the tokens are learned."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator

from pydantic import BaseModel

from contract.failure import InputError
from contract.formatting import truncate
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import DatasetReader
from dataset.dataset_report import Problem
from dataset.document import Document
from dataset.example import Example
from dataset.refusal import BadFile, BadRow
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import Tokenizer

_BATCH = 256
_MAX_PROBLEMS = 10
_NOT_SUPERVISED = 2**31
"""Stands for the first learned token of an example that has none at any length."""
_PERCENTILES = (0, 25, 50, 75, 90, 95, 99, 100)


class TokenLengths(BaseModel):
    """Length counts that suffice for a report at any max_length."""

    examples: int = 0
    tokens: int = 0
    """Tokens of all documents, uncut."""
    supervised: int = 0
    longest: Counter[int] = Counter()
    """Number of examples by the tokens of their longest document."""
    first: Counter[int] = Counter()
    """Number of examples by the tokens before their first learned one; cut at that length, an example is dropped."""
    refused: int = 0
    problems: list[Problem] = []
    """The first ten examples that the model's chat template refuses."""
    complete: bool = True
    """True if the whole file was measured, and not only its beginning."""


class LengthBucket(BaseModel):
    from_tokens: int
    to_tokens: int
    """Exclusive upper bound."""
    examples: int


class TokenReport(BaseModel):
    """Token counts of a dataset at one max_length."""

    examples: int
    """Number of examples measured."""
    complete: bool
    """True if the whole file was measured; false if it is large and only its first examples were."""
    tokens: int
    supervised_fraction: float | None
    """Fraction of the tokens that is learned."""
    percentiles: dict[str, int]
    """Tokens of an example by percentile: "50" is the median, "100" the longest."""
    histogram: list[LengthBucket]
    max_length: int
    truncated: int
    """Number of examples that are cut at max_length and still learned."""
    truncated_fraction: float | None
    dropped: int
    """Number of examples that are left out, because their first answer begins after max_length."""
    refused: int
    """Number of examples that the model's chat template refuses."""
    problems: list[Problem]


def measure_lengths(tokenizer: Tokenizer, file: DatasetFile, max_seconds: float = 20.0) -> TokenLengths:
    """Skips bad rows. Raises InputError if the template refuses all of the first examples."""
    found = TokenLengths()
    end = time.monotonic() + max_seconds
    examples = _examples(DatasetReader(file, None))
    while some := list(itertools.islice(examples, _BATCH)):
        for each in _encoded(tokenizer, some, found):
            _count(found, each)
        if not found.examples:
            encode(tokenizer, some[:1])  # raises, since the template has refused all of them
        if time.monotonic() > end:
            found.complete = next(examples, None) is None
            break
    return found


def _examples(reading: DatasetReader) -> Iterator[Example]:
    try:
        for row in reading.rows():
            if not isinstance(row.read, BadRow):
                yield from row.read
    except BadFile:
        return


def _encoded(tokenizer: Tokenizer, some: list[Example], found: TokenLengths) -> list[list[Document]]:
    """Encodes the examples together, which is faster; one by one if the template refuses one of them."""
    try:
        return encode(tokenizer, some)
    except InputError:
        taken = []
        for example in some:
            try:
                taken += encode(tokenizer, [example])
            except InputError as error:
                found.refused += 1
                if len(found.problems) < _MAX_PROBLEMS:
                    found.problems.append(Problem(row=None, message=truncate(error.failure.message, 500)))
        return taken


def _count(found: TokenLengths, documents: list[Document]) -> None:
    found.examples += 1
    found.tokens += sum(len(document.input_ids) for document in documents)
    found.supervised += sum(document.targets for document in documents)
    found.longest[max(len(document.input_ids) for document in documents)] += 1
    found.first[min((d.supervised.index(True) for d in documents if d.targets), default=_NOT_SUPERVISED)] += 1


def token_report(found: TokenLengths, max_length: int) -> TokenReport:
    dropped = sum(count for first, count in found.first.items() if first >= max_length)
    longer = sum(count for length, count in found.longest.items() if length > max_length)
    # An example whose first answer begins after max_length is longer than max_length.
    truncated = longer - (dropped - found.first[_NOT_SUPERVISED])
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
    """The smallest length that this percentage of the examples does not exceed."""
    total, result, below = lengths.total(), {}, 0
    remaining = list(_PERCENTILES)
    for length in sorted(lengths):
        below += lengths[length]
        while remaining and below >= max(1, -(-remaining[0] * total // 100)):
            result[str(remaining.pop(0))] = length
    return result


def _histogram(lengths: Counter[int]) -> list[LengthBucket]:
    """Buckets of doubling width: [0, 16), [16, 32), [32, 64), ..., from the first to the last that is not empty."""
    counts: Counter[int] = Counter()
    for length, count in lengths.items():
        counts[max(4, length.bit_length())] += count
    if not counts:
        return []
    return [
        LengthBucket(from_tokens=0 if bits == 4 else 1 << (bits - 1), to_tokens=1 << bits, examples=counts[bits])
        for bits in range(min(counts), max(counts) + 1)
    ]
