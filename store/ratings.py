"""What people think of a model's answers: verdicts at a job, which are rows of datasets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract import ids
from store.errors import QuotaExceeded, RatingNotFound
from store.jobs import jobs
from store.models import AnswerRating
from store.paging import newest_first

MOST = 10_000
"""Most ratings of one job."""


class Counts(NamedTuple):
    desirable: int
    undesirable: int
    preferences: int

    @property
    def all(self) -> int:
        return sum(self)


def add(session: Session, job_id: str, scope: str | None, rating: AnswerRating) -> AnswerRating:
    """Adds a rating to a job, of `scope` where that is not None. Raises JobNotFound, QuotaExceeded."""
    jobs.lock(session, job_id, scope)  # so that two at once are counted both
    if count(session, job_id).all >= MOST:
        raise QuotaExceeded(f"job {job_id} has {MOST} ratings, and no job may have more; delete some")
    rating.id, rating.job_id = ids.new_id(ids.RATING), job_id
    session.add(rating)
    session.flush()
    session.refresh(rating)
    return rating


def get(session: Session, job_id: str, rating_id: str) -> AnswerRating:
    """A rating of the job. Raises RatingNotFound."""
    rating = session.get(AnswerRating, rating_id) if ids.is_id(ids.RATING, rating_id) else None
    if rating is None or rating.job_id != job_id:
        raise RatingNotFound(job_id, rating_id)
    return rating


def delete(session: Session, job_id: str, rating_id: str) -> None:
    """Raises RatingNotFound."""
    session.delete(get(session, job_id, rating_id))


def list_ratings(session: Session, job_id: str, limit: int, after: str | None) -> list[AnswerRating]:
    """One page of ratings, newest first; `after` is the last id of the page before. Raises RatingNotFound."""
    last = None if after is None else get(session, job_id, after)
    query = select(AnswerRating).where(AnswerRating.job_id == job_id)
    return list(session.scalars(newest_first(query, AnswerRating, limit, last)))


def count(session: Session, job_id: str) -> Counts:
    counted = select(
        func.count().filter(AnswerRating.label.is_(True)),
        func.count().filter(AnswerRating.label.is_(False)),
        func.count().filter(AnswerRating.label.is_(None)),
    ).where(AnswerRating.job_id == job_id)
    return Counts(*session.execute(counted).one())


def labelled_rows(session: Session, job_id: str) -> Iterator[dict[str, Any]]:
    """The answers that were called good or bad, oldest first, as rows that KTO learns from."""
    for rating in _oldest_first(session, job_id):
        if rating.label is not None:
            yield {"messages": [*rating.messages, rating.answer], **_extras(rating), "label": rating.label}


def preference_rows(session: Session, job_id: str) -> Iterator[dict[str, Any]]:
    """The comparisons, oldest first, as rows that DPO learns from, in OpenAI's form."""
    for rating in _oldest_first(session, job_id):
        if rating.rejected is not None:
            extras = _extras(rating)
            given = {"messages": rating.messages, **({"tools": extras.pop("tools")} if "tools" in extras else {})}
            yield {
                "input": given,
                "preferred_output": [rating.answer],
                "non_preferred_output": [rating.rejected],
                **extras,
            }


def _oldest_first(session: Session, job_id: str) -> Iterator[AnswerRating]:
    query = select(AnswerRating).where(AnswerRating.job_id == job_id).order_by(AnswerRating.created_at, AnswerRating.id)
    yield from session.scalars(query, execution_options={"yield_per": 500})


def _extras(rating: AnswerRating) -> dict[str, Any]:
    named = {"tools": rating.tools, "chat_template_kwargs": rating.chat_template_kwargs}
    return {name: value for name, value in named.items() if value}
