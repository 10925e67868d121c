"""Evaluations: a dataset run through a job's base model and its adapter."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.auth.who import Who
from api.context import Context
from api.evaluations import service
from api.evaluations.schemas import (
    EvaluatedRowOut,
    EvaluatedRows,
    EvaluationIn,
    EvaluationOut,
    EvaluationPage,
    evaluation_out,
)
from api.http.body import described, json_body
from api.http.idempotency import Once, idempotent
from api.http.ids import JobId
from contract import ids, patterns
from contract.formatting import truncate
from store import evaluations
from store.access import audit
from store.errors import EvaluationNotFound
from store.jobs import jobs
from store.models import JobEvaluation
from store.paging import Page, page

router = APIRouter(tags=["evaluations"])

Limit = Annotated[int, Query(ge=1, le=100)]


def _check_id(evaluation_id: str | None) -> None:
    """Raises EvaluationNotFound for what can be no id: PostgreSQL does not take every text as a parameter."""
    if evaluation_id is not None and not ids.is_id(ids.EVALUATION, evaluation_id):
        raise EvaluationNotFound(truncate(evaluation_id))


@router.post("/jobs/{job_id}/evaluations", status_code=HTTPStatus.ACCEPTED, openapi_extra=described(EvaluationIn))
def create_evaluation(
    services: Context,
    who: Who,
    once: Once,
    job_id: JobId,
    wanted: Annotated[EvaluationIn, Depends(json_body(EvaluationIn))],
) -> EvaluationOut:
    """Has a worker run a dataset through the base model and the job's adapter, or one of its checkpoints, and compare
    them. It goes on while a device is free that no job wants."""
    with idempotent(services, once) as turn:
        if turn.made is None:
            return evaluation_out(service.create(services, who, turn, job_id, wanted))
        with services.sessions.begin() as session:
            jobs.get(session, job_id, who.scope)
            return evaluation_out(evaluations.get(session, job_id, turn.made))


@router.get("/jobs/{job_id}/evaluations")
def list_evaluations(
    services: Context, who: Who, job_id: JobId, limit: Limit = 20, after: str | None = None
) -> EvaluationPage:
    """Newest first."""
    _check_id(after)
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        return _page(page(evaluations.list_of_job(session, job_id, limit + 1, after), limit))


@router.get("/evaluations")
def list_all_evaluations(
    services: Context,
    who: Who,
    dataset_sha256: Annotated[str | None, Query(pattern=patterns.SHA256)] = None,
    limit: Limit = 20,
    after: str | None = None,
) -> EvaluationPage:
    """Those of all your jobs, newest first; with `dataset_sha256` those on one dataset, whose scores can be
    compared."""
    _check_id(after)
    with services.sessions.begin() as session:
        found = evaluations.list_of_dataset(session, dataset_sha256, limit + 1, after, who.scope)
        return _page(page(found, limit))


def _page(found: Page[JobEvaluation]) -> EvaluationPage:
    return EvaluationPage(data=[evaluation_out(each) for each in found.rows], has_more=found.has_more)


@router.get("/jobs/{job_id}/evaluations/{evaluation_id}")
def get_evaluation(services: Context, who: Who, job_id: JobId, evaluation_id: str) -> EvaluationOut:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(evaluation_id)
        return evaluation_out(evaluations.get(session, job_id, evaluation_id))


@router.get("/jobs/{job_id}/evaluations/{evaluation_id}/rows")
def list_evaluated_rows(  # parameters: the request's
    services: Context,
    who: Who,
    job_id: JobId,
    evaluation_id: str,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Limit = 20,
) -> EvaluatedRows:
    """The examples that are done, in the order of the file, with both answers; `after` is the last number before."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(evaluation_id)
        evaluations.get(session, job_id, evaluation_id)
        found = page(evaluations.list_rows(session, evaluation_id, limit + 1, after), limit)
        rows = [EvaluatedRowOut.model_validate(row.data) for row in found.rows]
        return EvaluatedRows(data=rows, has_more=found.has_more)


@router.delete("/jobs/{job_id}/evaluations/{evaluation_id}", status_code=HTTPStatus.NO_CONTENT)
def delete_evaluation(services: Context, who: Who, job_id: JobId, evaluation_id: str) -> None:
    """Deletes an evaluation with its rows and its artifact. One that is not done ends within seconds."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(evaluation_id)
        evaluations.delete(session, job_id, evaluation_id, who.scope)
        audit.record(session, who, "evaluation.delete", evaluation_id, job=job_id)
