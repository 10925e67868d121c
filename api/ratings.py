"""What people think of a model's answers: stored at a job, listed, deleted, and downloaded as datasets."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from api.auth.who import Who
from api.context import Context, Services
from api.http.body import described, parse_body, read_body
from api.http.idempotency import Once, idempotent
from api.http.ids import JobId
from contract import ids, patterns
from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from dataset.example import ChatMessage
from dataset.formats.messages import from_messages
from dataset.formats.template_arguments import read_arguments
from dataset.refusal import BadRow
from store import ratings
from store.access import audit
from store.access.principal import Principal
from store.errors import RatingNotFound
from store.jobs import jobs
from store.models import AnswerRating
from store.paging import page

_Model = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=patterns.TEXT)]
_Message = dict[str, Any]


class RatingIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    messages: Annotated[list[_Message], Field(min_length=1, max_length=10_000)]
    """The conversation before the answer, as it was sent."""
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    answer: _Message
    """The assistant's message."""
    model: _Model
    """Name of the model that has given it."""
    label: bool | None = None
    """Whether the answer is good. Give either this or `rejected`."""
    rejected: _Message | None = None
    """Another answer to the same messages, which is worse."""
    rejected_model: _Model | None = None
    """Name of the model that has given that one."""


class RatingOut(RatingIn):
    id: str
    owner: str
    created_at: datetime


class RatingPage(BaseModel):
    data: list[RatingOut]
    has_more: bool
    desirable: int
    """Ratings of the job with the label true, on all pages."""
    undesirable: int
    preferences: int


class RatingDeleted(BaseModel):
    id: str
    deleted: Literal[True] = True


router = APIRouter(tags=["ratings"])


@router.post("/jobs/{job_id}/ratings", status_code=HTTPStatus.CREATED, openapi_extra=described(RatingIn))
def create_rating(
    services: Context, who: Who, once: Once, job_id: JobId, body: Annotated[bytes, Depends(read_body)]
) -> RatingOut:
    """Stores what somebody thinks of an answer: with `label` that it is good or bad, with `rejected` that it is better
    than another one. A job keeps up to 10,000."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
    given = parse_body(RatingIn, body)
    _check(given)
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            return _out(ratings.get(session, job_id, turn.made))
        rating = ratings.add(session, job_id, who.scope, AnswerRating(owner=who.owner, **given.model_dump()))
        audit.record(session, who, "rating.create", rating.id, job=job_id)
        turn.complete(session, rating.id)
        return _out(rating)


def _check(given: RatingIn) -> None:
    """Raises InputError for what is no verdict, or could not be learned as a row of a dataset."""
    if (given.label is None) == (given.rejected is None):
        raise _refused("label", "give either label, true or false, or rejected, the worse answer")
    if (given.rejected is None) != (given.rejected_model is None):
        raise _refused("rejected_model", "give rejected and rejected_model together")
    try:
        read_arguments(given.chat_template_kwargs)
    except BadRow as error:
        raise InputError(FailureCode.DATASET_INVALID, str(error), "chat_template_kwargs") from error
    answer = _read_answer("answer", given, given.answer)
    if given.rejected is not None and _read_answer("rejected", given, given.rejected) == answer:
        raise _refused("rejected", "is the same as answer, so neither is better; give another answer")


def _read_answer(param: str, given: RatingIn, answer: _Message) -> ChatMessage:
    """The answer as a row of a dataset has it. Raises InputError."""
    try:
        read = from_messages({"messages": [*given.messages, answer], "tools": given.tools})
    except BadRow as error:
        raise _refused(param, f"as a row of a dataset it {error}") from error
    if not read.supervised[-1]:
        raise _refused(param, "as a row of a dataset it has no answer; give a message of the assistant with content")
    return read.messages[-1]


def _refused(param: str, message: str) -> InputError:
    return InputError(FailureCode.DATASET_INVALID, f"{param}: {message}", param)


@router.get("/jobs/{job_id}/ratings")
def list_ratings(
    services: Context,
    who: Who,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> RatingPage:
    """Newest first."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if after is not None:
            _check_id(job_id, after)
        found = page(ratings.list_ratings(session, job_id, limit + 1, after), limit)
        counts = ratings.count(session, job_id)
        return RatingPage(data=[_out(each) for each in found.rows], has_more=found.has_more, **counts._asdict())


@router.delete("/jobs/{job_id}/ratings/{rating_id}")
def delete_rating(services: Context, who: Who, job_id: JobId, rating_id: str) -> RatingDeleted:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(job_id, rating_id)
        ratings.delete(session, job_id, rating_id)
        audit.record(session, who, "rating.delete", rating_id, job=job_id)
    return RatingDeleted(id=rating_id)


def _check_id(job_id: str, rating_id: str) -> None:
    """Raises RatingNotFound for what can be no id: PostgreSQL does not take every text as a parameter."""
    if not ids.is_id(ids.RATING, rating_id):
        raise RatingNotFound(job_id, truncate(rating_id))


_JSONL: dict[int | str, dict[str, Any]] = {200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}}


@router.get("/jobs/{job_id}/ratings-kto.jsonl", response_class=Response, responses=_JSONL)
def download_labels(services: Context, who: Who, job_id: JobId) -> Response:
    """The answers with a label, as a dataset for the method "kto"."""
    return _download(services, who, job_id, "kto", ratings.labelled_rows)


@router.get("/jobs/{job_id}/ratings-dpo.jsonl", response_class=Response, responses=_JSONL)
def download_preferences(services: Context, who: Who, job_id: JobId) -> Response:
    """The pairs of answers, as a dataset for the methods "dpo", "orpo" and "simpo"."""
    return _download(services, who, job_id, "dpo", ratings.preference_rows)


Rows = Callable[[Session, str], Iterator[dict[str, Any]]]


def _download(services: Services, who: Principal, job_id: str, method: str, rows: Rows) -> Response:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
    headers = {
        "content-disposition": f'attachment; filename="{job_id}-{method}.jsonl"',
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_lines(services, job_id, rows), media_type="application/jsonl", headers=headers)


def _lines(services: Services, job_id: str, rows: Rows) -> Iterator[str]:
    with services.sessions.begin() as session:
        for row in rows(session, job_id):
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _out(rating: AnswerRating) -> RatingOut:
    return RatingOut.model_validate(rating, from_attributes=True)
