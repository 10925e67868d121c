"""What the service answers about datasets."""

from dataclasses import dataclass, field
from datetime import datetime

from finetuned.json_object import Object


@dataclass(frozen=True)
class Problem(Object):
    message: str
    row: int | None = None


@dataclass(frozen=True)
class DatasetReport(Object):
    rows: int
    examples: int
    format: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0
    errors: tuple[Problem, ...] = ()
    error_count: int = 0
    unused_fields: dict[str, int] = field(default_factory=dict)
    learned: str | None = None
    """What the rows have: "answers", "pairs" or "ratings"."""
    identical_pairs: int = 0
    desirable: int = 0
    undesirable: int = 0


@dataclass(frozen=True)
class DatasetFields(Object):
    id: str
    status: str
    """"uploaded" while the rows are checked, then "processed" or "error"."""
    owner: str | None = None
    filename: str = ""
    bytes: int = 0
    sha256: str | None = None
    status_details: str | None = None
    format: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    rows: int | None = None
    created_at: datetime | None = None
    report: DatasetReport | None = None


@dataclass(frozen=True)
class LengthBucket(Object):
    from_tokens: int
    to_tokens: int
    examples: int


@dataclass(frozen=True)
class PartLengths(Object):
    """Tokens of one part of all pairs."""

    mean: float
    percentiles: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PairReport(Object):
    prompt: PartLengths
    chosen: PartLengths
    rejected: PartLengths
    identical_pairs: int = 0


@dataclass(frozen=True)
class RatingReport(Object):
    desirable: int = 0
    undesirable: int = 0


@dataclass(frozen=True)
class TokenReport(Object):
    examples: int
    tokens: int
    complete: bool = False
    supervised_fraction: float | None = None
    percentiles: dict[str, int] = field(default_factory=dict)
    histogram: tuple[LengthBucket, ...] = ()
    max_length: int = 0
    truncated: int = 0
    dropped: int = 0
    dropped_rows: tuple[int, ...] = ()
    pairs: PairReport | None = None
    ratings: RatingReport | None = None
    refused: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Token(Object):
    id: int
    text: str
    supervised: bool = False


@dataclass(frozen=True)
class RenderedText(Object):
    text: str
    length: int = 0
    supervised: int = 0
    kept: int = 0
    tokens: tuple[Token, ...] = ()
    answer: str | None = None
    """"chosen" or "rejected" of a pair."""


@dataclass(frozen=True)
class PreviewExample(Object):
    row: int
    texts: tuple[RenderedText, ...] = ()
    truncated: bool = False
    dropped: bool = False
    problem: str | None = None
    desirable: bool | None = None
    """Whether the answer is rated as good; None if it has no rating."""
