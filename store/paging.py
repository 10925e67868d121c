"""Pages of a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    rows: Sequence[Row]
    has_more: bool


def page(found: Sequence[Row], limit: int) -> Page[Row]:
    """`found` are the rows of a query for one more than `limit`."""
    return Page(found[:limit], len(found) > limit)
