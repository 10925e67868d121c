"""The one writer of a job's status: `_moving` makes the statement, and `move` and `begin` run it."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
    any_,
    bindparam,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from contract.status import TERMINAL, JobStatus, allowed_from
from store import webhooks
from store.jobs.loss_curve import LOSS_CURVE
from store.models import Event, Job
from store.scheduling import leases


def move(  # parameters: the guard and the new values
    session: Session,
    job_id: str,
    target: JobStatus,
    *,
    attempt: int | None = None,
    only_from: Collection[JobStatus] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Job | None:
    """Writes a status together with its event and its messages to webhooks. Returns None and writes nothing where
    another writer was first.

    The guard: contract.status allows the move from the job's status, which is one of `only_from`, and the job is at
    `attempt`, where these are given. Six parameters: the guard and the values of one statement.
    """
    moved, *records = _moving(target, only_from, values or {}, *([] if attempt is None else [Job.attempt == attempt]))
    return session.scalars(
        select(Job).from_statement(select(moved).add_cte(*records)),
        {"its_id": job_id, "at": time.time()},
        execution_options={"populate_existing": True},
    ).one_or_none()


def _moving(
    target: JobStatus,
    only_from: Collection[JobStatus] | None,
    values: Mapping[str, Any],
    *guards: ColumnElement[bool],
) -> list[CTE]:
    """The parts of one statement: the first moves the job `its_id`, the others record that with the time `at`."""
    sources = allowed_from(target) if only_from is None else allowed_from(target) & frozenset(only_from)
    left = {"requested_action": None, "cluster_wait": None}
    columns = {"status": target, "event_count": Job.event_count + 1, **left, **values}
    if target is not JobStatus.RUNNING:
        columns["lease_expires_at"] = None
    if target is not JobStatus.FAILED:
        columns["failure"] = None
    columns["finished_at"] = func.now() if target in TERMINAL else None
    columns["loss_curve"] = literal_column(LOSS_CURVE) if target in TERMINAL else None
    # An array: SQLAlchemy would write the statement anew for each IN.
    its = update(Job).where(
        Job.id == bindparam("its_id"), Job.status == any_(literal(sorted(sources), _STATUSES)), *guards
    )
    job = its.values(columns).returning(*Job.__table__.c).cte("moved")
    row = (job.c.id, job.c.event_count, bindparam("at", type_=Float), literal("status"), _event_data(job, target))
    event = insert(Event).from_select(["job_id", "seq", "time", "type", "data"], select(*row))
    return [job, event.cte("event"), *webhooks.deliveries_of_move(job, target)]


def _event_data(job: FromClause, target: JobStatus) -> ColumnElement[Any]:
    data: list[Any] = ["status", job.c.status, "attempt", job.c.attempt]
    if target is JobStatus.RUNNING:
        data += ["worker", job.c.worker]
    if target is JobStatus.FAILED:
        data += ["failure", job.c.failure]
    return func.json_build_object(*data)


_STATUSES = ARRAY(Text)


@dataclass(frozen=True)
class AttemptPart:
    """A worker's part of an attempt."""

    job_id: str
    attempt: int
    recipe: dict[str, Any]
    """The recipe as stored; the current schema may refuse one of an older schema."""
    batch: dict[str, Any] | None
    """A contract.recipe.Batch that replaces the recipe's."""
    devices: list[int]
    """Numbers of the devices on the worker's machine."""
    rank: int
    """Rank of the machine: 0 runs the job, the others only train."""
    traceparent: str | None = None
    """The span of the request that created the job."""


def begin(  # parameters: the guard and the lease
    session: Session, job_id: str, attempt: int, worker: str, pid: int, lease: timedelta
) -> AttemptPart | None:
    """Starts a worker's part of an attempt in process `pid`; the part of rank 0 also leases the job. None where the
    part was revoked or another process has started it. Six parameters: those of the one statement."""
    its = {"its_id": job_id, "its_attempt": attempt, "its_worker": worker, "its_pid": pid, "lease": lease}
    # Without the session, which would look for objects to load: half as much time again.
    taken = session.connection().execute(_BEGIN, its | {"at": time.time()}).all()
    if not taken:
        return None
    first = taken[0]
    devices = sorted(each.number for each in taken)
    return AttemptPart(job_id, attempt, first.recipe, first.batch, devices, first.rank, first.traceparent)


def _beginning() -> Select[Any]:
    attempt, worker = bindparam("its_attempt", type_=Integer), bindparam("its_worker", type_=Text)
    startable = or_(
        and_(Job.status == JobStatus.QUEUED, Job.attempt == attempt - 1),
        and_(Job.status == JobStatus.RUNNING, Job.attempt == attempt),
    )
    found = select(Job.id, Job.recipe, Job.batch, Job.traceparent)
    job = found.where(Job.id == bindparam("its_id"), startable).with_for_update().cte("job")
    taken = leases.claim(job, bindparam("its_id", type_=Text), attempt, worker, bindparam("its_pid", type_=Integer))
    values = {
        "attempt": attempt,
        "worker": worker,
        "started_at": func.now(),
        "lease_expires_at": func.now() + bindparam("lease", type_=Interval),
        "not_before": None,
        "rendezvous": None,
    }
    head = select(taken.c.rank).where(taken.c.rank == 0).exists()
    kept = (job.c.recipe, job.c.batch, job.c.traceparent)
    begun = select(taken.c.rank, taken.c.number, *kept).join_from(taken, job, true())
    return begun.add_cte(*_moving(JobStatus.RUNNING, {JobStatus.QUEUED}, values, head))


_BEGIN = _beginning()
"""Locks the job, claims its leases, and moves it when the machine of rank 0 starts. One statement, built once, because
building it takes longer than running it."""
