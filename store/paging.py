"""Pages of a list, newest first: a page starts after the last row of the page before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, tuple_

from store.models import AnswerRating, Dataset, Delivery, Export, Job, JobEvaluation, Key, Push, Sweep, Webhook

Row = TypeVar("Row")
Listed = Dataset | Delivery | Export | Job | JobEvaluation | Key | AnswerRating | Push | Sweep | Webhook


@dataclass(frozen=True)
class Page(Generic[Row]):
    rows: Sequence[Row]
    has_more: bool


def page(found: Sequence[Row], limit: int) -> Page[Row]:
    """`found` are the rows of a query for one more than `limit`."""
    return Page(found[:limit], len(found) > limit)


def newest_first(query: Select[Any], table: type[Listed], limit: int, last: Listed | None) -> Select[Any]:
    """The first `limit` rows of the query, newest first, that come after `last`; ids break ties of time."""
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
    if last is None:
        return query
    return query.where(tuple_(table.created_at, table.id) < (last.created_at, last.id))
