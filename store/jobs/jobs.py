"""Queries on jobs. Their status is written by store.jobs.transitions alone."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    Float,
    Select,
    Text,
    bindparam,
    cast,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ExecutableReturnsRows

from contract import ids
from contract.recipe import Recipe
from contract.status import JobStatus
from store.errors import JobNotFound, StaleAttempt
from store.models import Event, Job, TrackedRun
from store.paging import newest_first
from store.scheduling.situation import Wait

_NewEvent = tuple[str, Mapping[str, Any]]
"""Type and data."""


class SweepPart(NamedTuple):
    """What makes a job a run of a sweep."""

    sweep_id: str
    values: Mapping[str, Any]
    """By the dotted path of the recipe's field."""


def create(  # parameters: the columns of a row
    session: Session,
    recipe: Recipe,
    owner: str = "default",
    warnings: Sequence[str] = (),
    examples: int | None = None,
    expected_seconds: float | None = None,
    training_file: str | None = None,
    validation_file: str | None = None,
    start_from_job: str | None = None,
    tags: Mapping[str, str] | None = None,
    openai_request: Mapping[str, Any] | None = None,
    part: SweepPart | None = None,
    first_messages: Sequence[str] = (),
    traceparent: str | None = None,
) -> Job:
    """Creates a queued job. Its first events record that, the messages, and the warnings about its recipe. More than
    five parameters: the columns of the new row, which only POST /jobs and POST /sweeps set."""
    values = {
        "id": ids.new_id(ids.JOB),
        "name": recipe.name,
        "owner": owner,
        "recipe": recipe.model_dump(mode="json"),
        "priority": recipe.scheduling.priority,
        "examples": examples,
        "expected_seconds": expected_seconds,
        "event_count": 1 + len(first_messages) + len(warnings),
        "training_file": training_file,
        "validation_file": validation_file,
        "start_from_job": start_from_job,
        "tags": dict(tags) if tags else None,
        "openai_request": dict(openai_request) if openai_request else None,
        "sweep_id": part.sweep_id if part else None,
        "sweep_values": dict(part.values) if part else None,
        "traceparent": traceparent,
    }
    events: list[_NewEvent] = [
        ("status", {"status": JobStatus.QUEUED, "attempt": 0}),
        *(("log", {"level": "info", "message": message}) for message in first_messages),
        *(("log", {"level": "warning", "message": warning}) for warning in warnings),
    ]
    recorded = {
        "types": [kind for kind, _ in events],
        "data": [json.dumps(data) for _, data in events],
        "at": time.time(),
    }
    given = {f"its_{name}": value for name, value in values.items()}
    job = session.scalars(_CREATE, given | recorded).one()
    session.add_all(TrackedRun(job_id=job.id, type=name) for name in recipe.tracking.places)
    return job


def _create() -> ExecutableReturnsRows:
    """Adds a job and its first events."""
    columns = Job.__table__.c
    given = (
        *("id", "name", "owner", "recipe", "priority", "examples", "expected_seconds", "event_count", "training_file"),
        *("validation_file", "start_from_job", "tags", "openai_request", "sweep_id", "sweep_values", "traceparent"),
    )
    values = {name: bindparam(f"its_{name}", type_=columns[name].type) for name in given}
    new = insert(Job).values(
        **values,
        status=JobStatus.QUEUED,
        attempt=0,
        retries=0,
        # Not the start of the transaction, which all runs of a sweep share: the queue keeps their order.
        created_at=func.clock_timestamp(),
    )
    job = new.returning(*columns).cte("job")
    arrays = (bindparam(name, type_=ARRAY(Text)) for name in ("types", "data"))
    event = func.unnest(*arrays).table_valued("type", "data", with_ordinality="seq").render_derived()
    row = (job.c.id, event.c.seq, bindparam("at", type_=Float), event.c.type, cast(event.c.data, JSON))
    recorded = insert(Event).from_select(
        ["job_id", "seq", "time", "type", "data"], select(*row).join_from(job, event, true())
    )
    return select(Job).from_statement(select(job).add_cte(recorded.cte("recorded")))


_CREATE = _create()
"""One statement, made once: to put it together takes longer than to run it."""


def get(session: Session, job_id: str, owner: str | None = None) -> Job:
    """A job of `owner`, or of any owner with None. Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None or owner not in (None, job.owner):
        raise JobNotFound(job_id)
    return job


def get_jobs(session: Session, job_ids: Collection[str]) -> list[Job]:
    """The jobs with these ids that exist."""
    return list(session.scalars(select(Job).where(Job.id.in_(job_ids))))


def lock(session: Session, job_id: str, owner: str | None = None) -> Job:
    """A job, read afresh and locked until the transaction ends. Raises JobNotFound."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or owner not in (None, job.owner):
        raise JobNotFound(job_id)
    return job


def hold(session: Session, job_id: str, owner: str | None = None) -> Job:
    """A job that cannot be deleted before the transaction ends, nor its model. Raises JobNotFound."""
    job = session.get(Job, job_id, with_for_update={"read": True, "key_share": True}, populate_existing=True)
    if job is None or owner not in (None, job.owner):
        raise JobNotFound(job_id)
    return job


def list_jobs(
    session: Session,
    limit: int,
    after: str | None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[Job]:
    """One page of jobs, newest first, of `owner` or of all, and with all of `tags` if given; empty `tags` are those of
    jobs without any. `after` is the last id of the page before. Raises JobNotFound for an unknown `after`."""
    query = select(Job)
    if owner is not None:
        query = query.where(Job.owner == owner)
    if tags is not None:
        query = query.where(Job.tags.contains(dict(tags)) if tags else Job.tags.is_(None))
    last = None if after is None else get(session, after, owner)
    return list(session.scalars(newest_first(query, Job, limit, last)))


class QueuedJob(NamedTuple):
    """What an outlook needs of a queued job."""

    id: str
    owner: str
    shape: str


class MadeModel(NamedTuple):
    """A model that a job has made, with what a list needs of it."""

    id: str
    owner: str
    base: str
    suffix: str | None
    finished_at: datetime


def list_models(session: Session, owner: str | None, limit: int, after: str | None) -> list[MadeModel]:
    """One page of the models of jobs that have succeeded, newest first, of `owner` or of all, without deleted ones.
    `after` is the id of the last job of the page before. Raises JobNotFound for an unknown `after`."""
    columns = (
        Job.id,
        Job.owner,
        Job.recipe["model"].as_string(),
        Job.openai_request["suffix"].as_string(),
        Job.finished_at,
    )
    made = select(*columns).where(Job.status == JobStatus.SUCCEEDED, Job.model_deleted_at.is_(None))
    if owner is not None:
        made = made.where(Job.owner == owner)
    last = None if after is None else get(session, after, owner)
    return [MadeModel(*row) for row in session.execute(newest_first(made, Job, limit, last))]


def list_queued(session: Session) -> Sequence[QueuedJob]:
    """All queued jobs. Rows, not objects: decoding their recipes takes longer than the rest."""
    queued = select(Job.id, Job.owner, Job.shape).where(Job.status == JobStatus.QUEUED)
    return [QueuedJob(*row) for row in session.execute(queued)]


def owners(session: Session, job_ids: Collection[str]) -> dict[str, str]:
    """The owners of those of the jobs that exist."""
    if not job_ids:
        return {}
    return {row.id: row.owner for row in session.execute(select(Job.id, Job.owner).where(Job.id.in_(job_ids)))}


def owned(session: Session, job_ids: Collection[str], owner: str) -> set[str]:
    """The ids of those jobs that belong to the owner."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.owner == owner)))


def launch(  # parameters: the columns of a row
    session: Session, job_id: str, attempt: int, command: str, lease: timedelta, rendezvous: str | None = None
) -> None:
    """Stores the command of an attempt and where its machines meet, and renews the lease. Six parameters: one statement
    instead of two. Raises StaleAttempt."""
    mine = (Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    values = {"command": command, "rendezvous": rendezvous, "lease_expires_at": func.now() + lease}
    if session.scalar(update(Job).where(*mine).values(values).returning(Job.id)) is None:
        raise StaleAttempt(job_id, attempt)


def renew(session: Session, job_id: str, attempt: int, lease: timedelta) -> None:
    """Renews the lease of an attempt. Raises StaleAttempt."""
    mine = (Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    values = {"lease_expires_at": func.now() + lease}
    if session.scalar(update(Job).where(*mine).values(values).returning(Job.id)) is None:
        raise StaleAttempt(job_id, attempt)


def record_wait(session: Session, job_id: str, attempt: int, wait: Wait | None) -> None:
    """Stores why a cluster has not started the attempt. Once it has, the attempt begins anew: only from then on it
    takes time. Raises StaleAttempt."""
    job = lock_running(session, job_id, attempt)
    code = job.cluster_wait["code"] if job.cluster_wait else None
    job.cluster_wait = asdict(wait) if wait else None
    if wait is None:
        job.started_at = session.scalar(select(func.now()))
    if wait is None or wait.code != code:
        message = wait.reason if wait else "The cluster has started the job."
        record_event(session, job, "log", {"level": "info", "message": message})


def list_overdue(session: Session, worker: str, by: timedelta) -> set[str]:
    """The ids of the worker's jobs whose lease expired at least `by` ago."""
    late = (Job.status == JobStatus.RUNNING, Job.worker == worker, Job.lease_expires_at < func.now() - by)
    return set(session.scalars(select(Job.id).where(*late)))


def signal_peers_done(session: Session, job_id: str, attempt: int, lease: timedelta) -> Job:
    """Signals the other machines of an attempt that it is over, and renews the lease while they end. Returns the job.
    Raises StaleAttempt."""
    job = lock_running(session, job_id, attempt)
    job.rendezvous = ""
    job.lease_expires_at = func.now() + lease
    return job


def record_event(session: Session, job: Job, kind: str, data: Mapping[str, Any]) -> None:
    """Adds an event of the service to those of the trainer."""
    seq = update(Job).where(Job.id == job.id).values(event_count=Job.event_count + 1).returning(Job.event_count)
    _add_events(session, job.id, session.scalar(seq) or 0, [(kind, data)])


def expected_seconds(session: Session, recipe: Recipe, examples: int) -> float | None:
    """Expected time of training, from the time per example of the latest jobs with the same model on as many devices;
    None without any."""
    devices = recipe.resources.gpus * recipe.resources.nodes
    each = session.connection().scalar(_SECONDS_FOR_AN_EXAMPLE, {"model": recipe.model, "devices": devices})
    return None if each is None else float(each) * examples


def _seconds_for_an_example() -> Select[Any]:
    recent = select(Job).order_by(Job.created_at.desc()).limit(500).subquery()
    resources = recent.c.recipe["resources"]
    same = (
        recent.c.status == JobStatus.SUCCEEDED,
        recent.c.attempt == 1,
        recent.c.examples > 0,
        recent.c.recipe["model"].as_string() == bindparam("model"),
        resources["gpus"].as_integer() * resources["nodes"].as_integer() == bindparam("devices"),
    )
    seconds = func.extract("epoch", recent.c.finished_at - recent.c.started_at) / recent.c.examples
    latest = select(seconds.label("seconds")).where(*same).order_by(recent.c.finished_at.desc()).limit(5).subquery()
    return select(func.percentile_cont(0.5).within_group(latest.c.seconds))


_SECONDS_FOR_AN_EXAMPLE = _seconds_for_an_example()
"""Made once: to put it together takes longer than to run it."""


def _add_events(session: Session, job_id: str, first_seq: int, new: Sequence[_NewEvent]) -> None:
    numbered = enumerate(new, start=first_seq)
    rows = [{"job_id": job_id, "seq": seq, "type": kind, "data": dict(data)} for seq, (kind, data) in numbered]
    session.execute(_ADD_EVENTS, [{**row, "time": time.time()} for row in rows])


_ADD_EVENTS = insert(Event)


def lock_running(session: Session, job_id: str, attempt: int) -> Job:
    """A job, locked. Raises StaleAttempt where the attempt is no longer the running one."""
    try:
        job = lock(session, job_id)
    except JobNotFound as error:  # it has ended and was deleted
        raise StaleAttempt(job_id, attempt) from error
    if job.status is not JobStatus.RUNNING or job.attempt != attempt:
        raise StaleAttempt(job_id, attempt)
    return job
