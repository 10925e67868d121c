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
from dataset.example import Example, Preference, rating_of
from dataset.refusal import BadFile, BadRow
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import Tokenizer

_BATCH = 256
_MAX_PROBLEMS = 10
_MAX_ROWS = 10
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
    """Number of examples by the tokens before their first learned one; cut at that length, an example is dropped. Of a
    pair the answer that begins later counts."""
    rows: dict[int, list[int]] = {}
    """The first ten rows by the same tokens."""
    prompts: Counter[int] = Counter()
    """Number of pairs by the tokens of the prompt."""
    chosen: Counter[int] = Counter()
    """Number of pairs by the tokens of the better answer."""
    rejected: Counter[int] = Counter()
    """Number of pairs by the tokens of the other answer."""
    identical_pairs: int = 0
    desirable: int = 0
    undesirable: int = 0
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


class PartLengths(BaseModel):
    """Tokens of one part of all pairs, uncut."""

    mean: float
    percentiles: dict[str, int]


class PairReport(BaseModel):
    """How long the parts of pairs are. Answers that are preferred because they are longer teach length."""

    prompt: PartLengths
    chosen: PartLengths
    rejected: PartLengths
    identical_pairs: int
    """Number of pairs whose two answers are equal."""


class RatingReport(BaseModel):
    desirable: int
    """Number of answers rated as good."""
    undesirable: int
    """Number of answers rated as bad."""


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
    """Number of examples that are left out, because their first answer begins after max_length, or either answer of a
    pair does."""
    dropped_rows: list[int]
    """Rows of the first ten of them."""
    pairs: PairReport | None
    """Null if the examples are no pairs."""
    ratings: RatingReport | None
    """Null if the examples have no ratings."""
    refused: int
    """Number of examples that the model's chat template refuses."""
    problems: list[Problem]


def measure_lengths(tokenizer: Tokenizer, file: DatasetFile, max_seconds: float = 20.0) -> TokenLengths:
    """Skips bad rows. Raises InputError if the template refuses all of the first examples."""
    found = TokenLengths()
    end = time.monotonic() + max_seconds
    examples = _examples(DatasetReader(file, None))
    while some := list(itertools.islice(examples, _BATCH)):
        for (row, example), documents in _encoded(tokenizer, some, found):
            _count(found, row, example, documents)
        if not found.examples:
            encode(tokenizer, [some[0][1]])  # raises, since the template has refused all of them
        if time.monotonic() > end:
            found.complete = next(examples, None) is None
            break
    return found


_Placed = tuple[int, Example]
"""An example and its row."""


def _examples(reading: DatasetReader) -> Iterator[_Placed]:
    try:
        for row in reading.rows():
            if not isinstance(row.read, BadRow):
                yield from ((row.number, example) for example in row.read)
    except BadFile:
        return


def _encoded(tokenizer: Tokenizer, some: list[_Placed], found: TokenLengths) -> list[tuple[_Placed, list[Document]]]:
    """Encodes the examples together, which is faster; one by one if the template refuses one of them."""
    try:
        return list(zip(some, encode(tokenizer, [example for _, example in some]), strict=True))
    except InputError:
        taken = []
        for each in some:
            try:
                taken += [(each, documents) for documents in encode(tokenizer, [each[1]])]
            except InputError as error:
                found.refused += 1
                if len(found.problems) < _MAX_PROBLEMS:
                    found.problems.append(Problem(row=None, message=truncate(error.failure.message, 500)))
        return taken


def _count(found: TokenLengths, row: int, example: Example, documents: list[Document]) -> None:
    found.examples += 1
    found.tokens += sum(len(document.input_ids) for document in documents)
    found.supervised += sum(document.targets for document in documents)
    found.longest[max(len(document.input_ids) for document in documents)] += 1
    begins = [d.supervised.index(True) if d.targets else _NOT_SUPERVISED for d in documents]
    first = max(begins) if isinstance(example, Preference) else min(begins)
    found.first[first] += 1
    rows = found.rows.setdefault(first, [])
    if len(rows) < _MAX_ROWS and row not in rows:
        rows.append(row)
    found.desirable += rating_of(example) is True
    found.undesirable += rating_of(example) is False
    if isinstance(example, Preference):
        found.identical_pairs += example.chosen == example.rejected
        for lengths, length in (
            (found.prompts, min(begins)),
            (found.chosen, documents[0].targets),
            (found.rejected, documents[1].targets),
        ):
            lengths[length] += 1


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
        dropped_rows=_dropped_rows(found, max_length),
        pairs=_pair_report(found),
        ratings=_rating_report(found),
        refused=found.refused,
        problems=found.problems,
    )


def _dropped_rows(found: TokenLengths, max_length: int) -> list[int]:
    return sorted({row for first, rows in found.rows.items() if first >= max_length for row in rows})[:_MAX_ROWS]


def _pair_report(found: TokenLengths) -> PairReport | None:
    if not found.chosen:
        return None
    prompt, chosen, rejected = (_part(lengths) for lengths in (found.prompts, found.chosen, found.rejected))
    return PairReport(prompt=prompt, chosen=chosen, rejected=rejected, identical_pairs=found.identical_pairs)


def _part(lengths: Counter[int]) -> PartLengths:
    mean = sum(length * count for length, count in lengths.items()) / lengths.total()
    return PartLengths(mean=mean, percentiles=_percentiles(lengths))


def _rating_report(found: TokenLengths) -> RatingReport | None:
    if not found.desirable + found.undesirable:
        return None
    return RatingReport(desirable=found.desirable, undesirable=found.undesirable)


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
