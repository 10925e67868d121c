"""Events and metrics of running attempts: written in batches by the worker, read by the API."""

import heapq
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    Select,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from contract import events
from contract.status import JobStatus, RequestedAction
from store import artifacts
from store.errors import StaleAttempt
from store.jobs import jobs
from store.models import Event, Job, StepMetric

METRIC_COLUMNS = tuple(column.name for column in StepMetric.__table__.columns if column.name != "job_id")


class Cursor(NamedTuple):
    """A reader's position in a job: the last event and the last metric that it has."""

    seq: int = 0
    step: int = 0


class StreamedEvent(NamedTuple):
    """An event or a metric, as streams and lists give it."""

    cursor: Cursor
    """Position after it."""
    type: str
    data: dict[str, Any]


def record(
    session: Session, job_id: str, attempt: int, batch: Sequence[events.Event], lease: timedelta
) -> RequestedAction | None:
    """Writes a batch of the trainer's events, renews the lease, and returns the requested action.

    An existing step is kept. Raises StaleAttempt and writes nothing where the attempt is over.
    """
    others = [event for event in batch if not isinstance(event, events.MetricEvent)]
    columns: dict[str, Any] = {
        "event_count": Job.event_count + len(others),
        "lease_expires_at": func.now() + lease,
    }
    for event in others:
        if isinstance(event, events.StartedEvent):
            columns["total_steps"] = event.total_steps
    mine = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
        .values(columns)
        .returning(Job.event_count, Job.requested_action)
    ).one_or_none()
    if mine is None:
        raise StaleAttempt(job_id, attempt)
    last_seq, requested_action = mine
    if others:
        session.execute(
            insert(Event),
            [
                {"job_id": job_id, "seq": seq, "time": e.time, "type": e.type, "data": _clean(events.event_data(e))}
                for seq, e in enumerate(others, start=last_seq - len(others) + 1)
            ],
        )
    _keep(session, job_id, attempt, batch)
    return requested_action


def _clean(data: dict[str, Any]) -> dict[str, Any]:
    """Replaces what PostgreSQL's text cannot hold: NUL and halves of surrogate pairs. A model may generate any
    character."""
    return {
        name: value.encode(errors="replace").decode().replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in data.items()
    }


def catch_up(  # parameters: two attempts, and what one left
    session: Session, job_id: str, attempt: int, before: int, batch: Sequence[events.Event], lease: timedelta
) -> None:
    """Writes the events that attempt `before` had left in its run folder when its worker was lost, and renews the lease
    of `attempt`, which resumes it. Six parameters, because two attempts are named. Raises StaleAttempt and writes
    nothing where `attempt` is over."""
    jobs.renew(session, job_id, attempt, lease)
    _keep(session, job_id, before, batch)


def _keep(session: Session, job_id: str, attempt: int, batch: Sequence[events.Event]) -> None:
    """Stores metrics and artifacts; each is stored once, however often it comes."""
    for event in batch:
        if isinstance(event, events.StartedEvent):
            # An earlier attempt may have come further than this one starts; those steps are not in this adapter.
            session.execute(delete(StepMetric).where(StepMetric.job_id == job_id, StepMetric.step > event.resumed_step))
    rows = [{"job_id": job_id, **e.model_dump(exclude={"type"})} for e in batch if isinstance(e, events.MetricEvent)]
    if rows:
        session.execute(upsert(StepMetric).on_conflict_do_nothing(), rows)
    for event in batch:
        if isinstance(event, events.CheckpointEvent):
            artifacts.add_checkpoint(session, job_id, attempt, event)


def samples(session: Session, job_id: str, step: int | None) -> list[dict[str, Any]]:
    """The samples of the evaluation at `step`, or of the latest one that has any, by index."""
    query = select(Event.data).where(Event.job_id == job_id, Event.type == "sample").order_by(Event.seq)
    if step is None:
        latest = session.scalar(query.order_by(None).order_by(Event.seq.desc()).limit(1))
        if latest is None:
            return []
        step = latest["step"]
    # An attempt that resumes before that step reports its samples again.
    by_index = {data["index"]: data for data in session.scalars(query.where(Event.data["step"].as_integer() == step))}
    return [by_index[index] for index in sorted(by_index)]


class Latest(NamedTuple):
    metric: StepMetric
    """The last one."""
    eval_loss: float | None
    """Loss of the last evaluation."""
    done: dict[str, Any]
    """Data of the last event contract.events.Done; empty without one."""


def latest(session: Session, job_ids: Sequence[str]) -> dict[str, Latest]:
    """The latest results of each job that has a metric."""
    rows = session.execute(_LATEST, {"ids": list(job_ids)}).mappings() if job_ids else ()
    return {
        row["job_id"]: Latest(
            StepMetric(**{name: row[name] for name in ("job_id", *METRIC_COLUMNS)}),
            (row["evaluation"] or {}).get("eval_loss"),
            row["done"] or {},
        )
        for row in rows
    }


def _latest() -> Select[Any]:
    ids = func.unnest(bindparam("ids", type_=ARRAY(Text))).table_valued("id").render_derived()
    metrics, events = StepMetric.__table__, Event.__table__
    last = select(metrics).where(metrics.c.job_id == ids.c.id).order_by(metrics.c.step.desc()).limit(1).lateral()
    ends = (
        select(events.c.data)
        .where(events.c.job_id == ids.c.id, events.c.type == kind)
        .order_by(events.c.seq.desc())
        .limit(1)
        .scalar_subquery()
        .label(kind)
        for kind in ("evaluation", "done")
    )
    return select(last, *ends).select_from(ids.join(last, true()))


_LATEST = _latest()
"""One look into the index for each job: DISTINCT ON would read all of its metrics. It names columns and no classes: an
alias of a class, shared by threads, is not safe while the first of them compile it."""


class JobUpdate(NamedTuple):
    """New events of one job, all read at one moment."""

    status: JobStatus
    end: Cursor
    """Position after all events and metrics of the job."""
    events: list[StreamedEvent]


# In SQL, where three lateral reads along primary keys are plain.
_NEWS = text(
    f"""
    WITH cursors AS (SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:seqs AS int[]), CAST(:steps AS int[]))
                   AS cursors (job_id, seq, step))
    SELECT id, NULL AS kind, event_count AS seq, last.step, NULL AS time, status AS type, NULL AS data
    FROM jobs, LATERAL (SELECT coalesce(max(step), 0) AS step FROM metrics WHERE job_id = id) AS last
    WHERE id = ANY(CAST(:ids AS text[]))
    UNION ALL
    SELECT cursors.job_id, 'event', found.seq, NULL, found.time, found.type, found.data
    FROM cursors, LATERAL (SELECT * FROM events WHERE job_id = cursors.job_id AND seq > cursors.seq
                         ORDER BY seq LIMIT :limit) AS found
    UNION ALL
    SELECT cursors.job_id, 'metric', NULL, found.step, found.time, 'metric', row_to_json(found)
    FROM cursors, LATERAL (SELECT {", ".join(METRIC_COLUMNS)} FROM metrics
                         WHERE job_id = cursors.job_id AND step > cursors.step
                         ORDER BY step LIMIT :limit) AS found
    """
)


def updates(session: Session, cursors: Mapping[str, Cursor], limit: int) -> dict[str, JobUpdate]:
    """The first `limit` events and metrics of each job after its cursor, merged by time, in one query. Jobs that do not
    exist are left out."""
    positions = {"seqs": [each.seq for each in cursors.values()], "steps": [each.step for each in cursors.values()]}
    rows: dict[tuple[str, str | None], list[Any]] = {}
    for row in session.execute(_NEWS, {"ids": list(cursors), "limit": limit, **positions}):
        rows.setdefault((row.id, row.kind), []).append(row)
    return {
        job_id: JobUpdate(
            JobStatus(row.type),
            Cursor(row.seq, row.step),
            _merged(cursors[job_id], rows.get((job_id, "event"), []), rows.get((job_id, "metric"), []), limit),
        )
        for (job_id, kind), (row, *_) in rows.items()
        if kind is None
    }


def _merged(cursor: Cursor, others: list[Any], steps: list[Any], limit: int) -> list[StreamedEvent]:
    others.sort(key=lambda row: row.seq)
    steps.sort(key=lambda row: row.step)
    merged = []
    # A merge, not a sort: the clocks of two machines may differ, yet each sequence must stay in its own order.
    for row in islice(heapq.merge(others, steps, key=lambda row: row.time), limit):
        if row.kind == "event":
            cursor = cursor._replace(seq=row.seq)
            merged.append(StreamedEvent(cursor, row.type, {"time": row.time, **row.data}))
        else:
            cursor = cursor._replace(step=row.step)
            merged.append(StreamedEvent(cursor, row.type, row.data))
    return merged


def events_since(session: Session, job_id: str, cursor: Cursor, limit: int) -> list[StreamedEvent]:
    """The first `limit` events and metrics after `cursor`; none where the job does not exist."""
    found = updates(session, {job_id: cursor}, limit).get(job_id)
    return found.events if found else []
