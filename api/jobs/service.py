"""Makes jobs of recipes, lists them, and passes on what their owners ask for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from api.context import Services
from api.http.idempotency import Turn, idempotent
from api.jobs.fit import refuse_what_cannot_fit
from api.jobs.schemas import JobUsage, usage_out
from api.jobs.submission import Examples, Submission, resolved
from api.jobs.view import JobView, views
from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from runtime import broker, tracing
from store import datasets
from store.access import audit, quotas
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.earlier_adapter import hold_earlier
from store.errors import DatasetNotFound
from store.jobs import actions, deletion, details, jobs, usage
from store.jobs.details import JobDetails
from store.jobs.jobs import SweepPart
from store.models import Job
from store.paging import Page, page
from store.scheduling import workers
from store.session import autocommit, read_snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """What a job carries for its owner, as its columns."""

    tags: Mapping[str, str] | None = None
    openai_request: Mapping[str, Any] | None = None
    part: SweepPart | None = None
    first_messages: Sequence[str] = ()
    """Lines at the start of its log."""


def create_job(  # parameters: who asks for what, how
    services: Services, who: Principal, turn: Turn, recipe: Recipe, force: bool = False, labels: Labels = Labels()
) -> Job:
    """Checks a recipe as far as can be done without training, stores it, and wakes a worker; with `force` also one that
    cannot fit into memory. Six parameters: they are what one request brings. Raises InputError, QuotaExceeded."""
    with autocommit(services.sessions) as connection:
        quotas.refuse_full_queue(connection, who.owner)  # before all rows are read
        machines = workers.list_machines(connection)
    trace = tracing.traceparent()
    with ExitStack() as files:
        with tracing.span("resolve", trace):
            submission = files.enter_context(resolved(services, who, recipe, machines))
            if not force:
                refuse_what_cannot_fit(services, submission)
        with tracing.span("insert", trace), services.sessions.begin() as session:
            seconds = jobs.expected_seconds(session, submission.recipe, submission.workload.examples)
            quotas.check_queue(session, who.owner)  # late, since it holds up the owner's other requests
            job = insert_job(session, who, submission, seconds, labels)
            audit.record(session, who, "job.create", job.id)
            turn.complete(session, job.id)
    wake_workers(services)
    return job


def insert_job(
    session: Session, who: Principal, submission: Submission, expected_seconds: float | None, labels: Labels
) -> Job:
    """Raises InputError where something that the recipe names was deleted since it was read."""
    return jobs.create(
        session,
        submission.recipe,
        who.owner,
        submission.warnings,
        submission.workload.examples,
        expected_seconds,
        training_file=_hold(session, who, submission.training),
        validation_file=_hold(session, who, submission.validation),
        start_from_job=_hold_earlier(session, who, submission.recipe.adapter.start_from),
        tags=labels.tags,
        openai_request=labels.openai_request,
        part=labels.part,
        first_messages=labels.first_messages,
        traceparent=tracing.traceparent(),
    )


def _hold(session: Session, who: Principal, examples: Examples | None) -> str | None:
    """The dataset's id. It may have been deleted since it was read. Raises InputError."""
    if examples is None or examples.dataset_id is None:
        return None
    try:
        datasets.lock(session, examples.dataset_id, who.scope)
    except DatasetNotFound as error:
        raise InputError(FailureCode.DATASET_NOT_FOUND, f"dataset: {error}", "dataset") from error
    return examples.dataset_id


def _hold_earlier(session: Session, who: Principal, start_from: str | None) -> str | None:
    """The id of the job that the recipe starts from. It may have been deleted since it was read. Raises InputError."""
    return None if start_from is None else hold_earlier(session, start_from, who.scope)


def wake_workers(services: Services) -> None:
    try:
        broker.request_scheduling(services.publisher)
    except OperationalError as error:
        # What is to be done is in the rows: the workers look at them by themselves, only later.
        log.warning("no wake-up for a job that waits: %s", error)


def get_job(services: Services, who: Principal, job_id: str) -> JobView:
    """Raises JobNotFound."""
    with read_snapshot(services.sessions) as session:
        return views(session, who, [details.get(session, job_id, who.scope)])[0]


def get_details(services: Services, who: Principal, job_id: str) -> JobDetails:
    """Without what it waits for. Raises JobNotFound."""
    with autocommit(services.sessions) as connection:
        return details.get(connection, job_id, who.scope)


def get_usage(services: Services, who: Principal, job_id: str) -> JobUsage:
    """Raises JobNotFound."""
    with read_snapshot(services.sessions) as session:
        job = jobs.get(session, job_id, who.scope)
        return usage_out(job, usage.read(session, job))


def list_jobs(
    services: Services, who: Principal, limit: int, after: str | None, owner: str | None = None
) -> Page[JobView]:
    """Those of `owner`, where an admin asks for them. Raises JobNotFound for an unknown `after`."""
    with read_snapshot(services.sessions) as session:
        found = page(details.list_jobs(session, limit + 1, after, who.scope or owner), limit)
        return Page(views(session, who, found.rows), found.has_more)


def cancel_job(services: Services, who: Principal, once: IdempotentRequest, job_id: str, force: bool = False) -> None:
    """Raises JobNotFound, IllegalMove, RequestReused, RequestInProgress; so do those below."""
    _act(services, who, once, job_id, ("cancel", partial(actions.cancel, force=force)))


def pause_job(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> None:
    _act(services, who, once, job_id, ("pause", actions.pause))


def resume_job(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> None:
    _act(services, who, once, job_id, ("resume", actions.resume))
    wake_workers(services)


def retry_job(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> None:
    _act(services, who, once, job_id, ("retry", actions.retry))
    wake_workers(services)


def delete_job(services: Services, who: Principal, job_id: str) -> None:
    """Raises JobNotFound, JobInUse."""
    with services.sessions.begin() as session:
        deletion.delete_job(session, job_id, who.scope)
        audit.record(session, who, "job.delete", job_id)


Action = tuple[str, Callable[[Session, str, str | None], Job]]


def _act(services: Services, who: Principal, once: IdempotentRequest, job_id: str, action: Action) -> None:
    """A repeated request with the same key does nothing: another request may have come since."""
    name, write = action
    with idempotent(services, once) as turn:
        if turn.made is None:
            with services.sessions.begin() as session:
                write(session, job_id, who.scope)
                audit.record(session, who, f"job.{name}", job_id)
                turn.complete(session, job_id)
