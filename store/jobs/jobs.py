"""The queries on jobs. `_moving` is the one writer of a status; `move` and `begin` run it."""

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Interval,
    Select,
    Text,
    and_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from contract.recipe import Recipe
from contract.status import TERMINAL, JobStatus, allowed_from
from store import webhooks
from store.errors import JobNotFound, StaleAttempt
from store.models import Event, Job
from store.scheduling import leases


def create(
    session: Session,
    recipe: Recipe,
    owner: str = "default",
    warnings: Sequence[str] = (),
    examples: int | None = None,
    expected_seconds: float | None = None,
    training_file: str | None = None,
    validation_file: str | None = None,
    tags: Mapping[str, str] | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Job:
    """A new job, queued; its first events tell of it and of what is unwise in its recipe."""
    job = Job(
        id=f"job_{secrets.token_hex(12)}",
        name=recipe.name,
        owner=owner,
        recipe=recipe.model_dump(mode="json"),
        priority=recipe.scheduling.priority,
        examples=examples,
        expected_seconds=expected_seconds,
        status=JobStatus.QUEUED,
        attempt=0,
        retries=0,
        event_count=1,
        training_file=training_file,
        validation_file=validation_file,
        tags=dict(tags) if tags else None,
        asked=dict(asked) if asked else None,
    )
    session.add(job)
    session.flush()
    _add_event(session, job.id, 1, "status", {"status": job.status, "attempt": job.attempt})
    for warning in warnings:
        tell(session, job, "log", {"level": "warning", "message": warning})
    return job


def get(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Whoever's it is, or that of `owner` alone. Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None or owner not in (None, job.owner):
        raise JobNotFound(job_id)
    return job


def of_ids(session: Session, job_ids: Collection[str]) -> list[Job]:
    """Those of them that are there."""
    return list(session.scalars(select(Job).where(Job.id.in_(job_ids))))


def lock(session: Session, job_id: str, owner: str | None = None) -> Job:
    """The job as it is now, and nobody else's until the transaction ends. Raises JobNotFound."""
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or owner not in (None, job.owner):
        raise JobNotFound(job_id)
    return job


def newest(
    session: Session,
    limit: int,
    after: str | None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[Job]:
    """Newest first, of `owner` and with all of `tags` where these are given: none of them is those without any. `after`
    is the last id of the page before. Raises JobNotFound for an unknown `after`."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(Job.owner == owner)
    if tags is not None:
        query = query.where(Job.tags.contains(dict(tags)) if tags else Job.tags.is_(None))
    if after is not None:
        last = get(session, after, owner)
        query = query.where(tuple_(Job.created_at, Job.id) < (last.created_at, last.id))
    return list(session.scalars(query))


class Made(NamedTuple):
    """A job that has made a model, as far as a list needs it."""

    id: str
    owner: str
    base: str
    suffix: str | None
    finished_at: datetime


def with_models(session: Session, owner: str | None, limit: int, after: str | None) -> list[Made]:
    """Of `owner` or of all, newest first; `after` is the id of the last job of the page before. Those that have
    succeeded and whose model was not deleted. Raises JobNotFound for an unknown `after`."""
    columns = (Job.id, Job.owner, Job.recipe["model"].as_string(), Job.asked["suffix"].as_string(), Job.finished_at)
    made = select(*columns).where(Job.status == JobStatus.SUCCEEDED, Job.model_deleted_at.is_(None))
    if owner is not None:
        made = made.where(Job.owner == owner)
    if after is not None:
        last = get(session, after, owner)
        made = made.where(tuple_(Job.created_at, Job.id) < (last.created_at, last.id))
    made = made.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    return [Made(*row) for row in session.execute(made)]


def delete_model(session: Session, job: Job) -> bool:
    """Of a job that is locked. False where it has made none, or it is deleted already."""
    if job.status is not JobStatus.SUCCEEDED or job.model_deleted_at is not None:
        return False
    job.model_deleted_at = session.scalar(select(func.now()))
    return True


def owned(session: Session, job_ids: Collection[str], owner: str) -> set[str]:
    """Those of them that are the owner's."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.owner == owner)))


def move(
    session: Session,
    job_id: str,
    target: JobStatus,
    *,
    attempt: int | None = None,
    only_from: Collection[JobStatus] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Job | None:
    """Writes a status, an event that tells of it and messages to webhooks; None where another won, and nothing is
    written then.

    The guard: the job is in a state from which the table allows the move, and in one of `only_from`, and at `attempt`,
    where these are given.
    """
    moved, *told = _moving(target, only_from, values or {}, *([] if attempt is None else [Job.attempt == attempt]))
    return session.scalars(
        select(Job).from_statement(select(moved).add_cte(*told)),
        {"its_id": job_id, "told_at": time.time()},
        execution_options={"populate_existing": True},
    ).one_or_none()


def _moving(
    target: JobStatus,
    only_from: Collection[JobStatus] | None,
    values: Mapping[str, Any],
    *guards: ColumnElement[bool],
) -> list[CTE]:
    """Parts of one statement: the first moves the job `its_id`, the others tell of it, at `told_at`."""
    sources = allowed_from(target) if only_from is None else allowed_from(target) & frozenset(only_from)
    columns = {"status": target, "event_count": Job.event_count + 1, "requested_action": None, **values}
    if target is not JobStatus.RUNNING:
        columns["lease_expires_at"] = None
    if target is not JobStatus.FAILED:
        columns["failure"] = None
    columns["finished_at"] = func.now() if target in TERMINAL else None
    its = update(Job).where(Job.id == bindparam("its_id"), Job.status.in_(sources), *guards)
    job = its.values(columns).returning(*Job.__table__.c).cte("moved")
    event = (job.c.id, job.c.event_count, bindparam("told_at", type_=Float), literal("status"), _told(job, target))
    told = insert(Event).from_select(["job_id", "seq", "time", "type", "data"], select(*event))
    return [job, told.cte("told"), *webhooks.telling(job, target)]


def _told(job: FromClause, target: JobStatus) -> ColumnElement[Any]:
    told: list[Any] = ["status", job.c.status, "attempt", job.c.attempt]
    if target is JobStatus.RUNNING:
        told += ["worker", job.c.worker]
    if target is JobStatus.FAILED:
        told += ["failure", job.c.failure]
    return func.json_build_object(*told)


@dataclass(frozen=True)
class Part:
    """What a worker has of an attempt."""

    job_id: str
    attempt: int
    recipe: dict[str, Any]
    """As the row has it; a newer schema may refuse what an older one took."""
    batch: dict[str, Any] | None
    """A contract.recipe.Batch in the place of the recipe's."""
    devices: list[int]
    """Of the worker's machine."""
    rank: int
    """Of the machine; 0 runs the job, the others only train."""


def begin(session: Session, job_id: str, attempt: int, worker: str, pid: int, lease: timedelta) -> Part | None:
    """A worker's process begins its part of an attempt at a job that has been placed there, and that of rank 0 leases
    the job; None where it is no longer to be. No two processes begin the same part."""
    its = {"its_id": job_id, "its_attempt": attempt, "its_worker": worker, "its_pid": pid, "lease": lease}
    # Not by the session: it would look for objects to load, which takes as long as half of the rest.
    taken = session.connection().execute(_BEGIN, its | {"told_at": time.time()}).all()
    if not taken:
        return None
    first = taken[0]
    devices = sorted(each.number for each in taken)
    return Part(job_id, attempt, first.recipe, first.batch, devices, first.rank)


def _beginning() -> Select[Any]:
    attempt, worker = bindparam("its_attempt", type_=Integer), bindparam("its_worker", type_=Text)
    to_be = or_(
        and_(Job.status == JobStatus.QUEUED, Job.attempt == attempt - 1),
        and_(Job.status == JobStatus.RUNNING, Job.attempt == attempt),
    )
    locked = select(Job.id, Job.recipe, Job.batch).where(Job.id == bindparam("its_id"), to_be).with_for_update()
    job = locked.cte("job")
    taken = leases.taking_up(job.c.id, attempt, worker, bindparam("its_pid", type_=Integer))
    values = {
        "attempt": attempt,
        "worker": worker,
        "started_at": func.now(),
        "lease_expires_at": func.now() + bindparam("lease", type_=Interval),
        "not_before": None,
        "rendezvous": None,
    }
    head = select(taken.c.rank).where(taken.c.rank == 0).exists()
    begun = select(taken.c.rank, taken.c.number, job.c.recipe, job.c.batch).join_from(taken, job, true())
    return begun.add_cte(*_moving(JobStatus.RUNNING, {JobStatus.QUEUED}, values, head))


_BEGIN = _beginning()
"""Locks the job, takes up its leases, and moves it where the first machine begins. One statement, made once: to put it
together takes longer than to run it."""


def launch(
    session: Session, job_id: str, attempt: int, command: str, lease: timedelta, rendezvous: str | None = None
) -> None:
    """Keeps the command that an attempt is started with and where its machines meet, and renews the lease. Raises
    StaleAttempt."""
    mine = (Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    values = {"command": command, "rendezvous": rendezvous, "lease_expires_at": func.now() + lease}
    if session.scalar(update(Job).where(*mine).values(values).returning(Job.id)) is None:
        raise StaleAttempt(job_id, attempt)


def renew(session: Session, job_id: str, attempt: int, lease: timedelta) -> None:
    """Keeps the lease of an attempt that has not started its trainer yet. Raises StaleAttempt."""
    mine = (Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    values = {"lease_expires_at": func.now() + lease}
    if session.scalar(update(Job).where(*mine).values(values).returning(Job.id)) is None:
        raise StaleAttempt(job_id, attempt)


def overdue(session: Session, worker: str, by: timedelta) -> set[str]:
    """The jobs of the worker whose lease has passed for so long."""
    late = (Job.status == JobStatus.RUNNING, Job.worker == worker, Job.lease_expires_at < func.now() - by)
    return set(session.scalars(select(Job.id).where(*late)))


def part_with_the_others(session: Session, job_id: str, attempt: int, lease: timedelta) -> Job:
    """Tells the other machines of an attempt that it is over, and renews the lease until they are done. The job, as it
    is then. Raises StaleAttempt."""
    job = still_running(session, job_id, attempt)
    job.rendezvous = ""
    job.lease_expires_at = func.now() + lease
    return job


def tell(session: Session, job: Job, kind: str, data: Mapping[str, Any]) -> None:
    """Adds an event of the service's own to those of the trainer."""
    told = update(Job).where(Job.id == job.id).values(event_count=Job.event_count + 1).returning(Job.event_count)
    _add_event(session, job.id, session.scalar(told) or 0, kind, data)


def expected_seconds(session: Session, recipe: Recipe, examples: int) -> float | None:
    """How long the recipe will train, as the latest jobs of the same model on as many devices took for an example; None
    where there are none."""
    devices = recipe.resources.gpus * recipe.resources.nodes
    each = session.scalar(_SECONDS_FOR_AN_EXAMPLE, {"model": recipe.model, "devices": devices})
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


def _add_event(session: Session, job_id: str, seq: int, kind: str, data: Mapping[str, Any]) -> None:
    row = {"job_id": job_id, "seq": seq, "time": time.time(), "type": kind, "data": dict(data)}
    session.execute(insert(Event).values(row))


def still_running(session: Session, job_id: str, attempt: int) -> Job:
    """The job, locked. Raises StaleAttempt where the attempt has ended for the service."""
    job = lock(session, job_id)
    if job.status is not JobStatus.RUNNING or job.attempt != attempt:
        raise StaleAttempt(job_id, attempt)
    return job
