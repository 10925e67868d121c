"""What a running attempt tells: written in batches by its worker, read by the API."""

import heapq
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from contract import events
from contract.status import JobStatus, RequestedAction
from store import artifacts
from store.errors import StaleAttempt
from store.jobs import jobs
from store.models import Event, Job, Metric

METRIC_COLUMNS = tuple(column.name for column in Metric.__table__.columns if column.name != "job_id")


class Cursor(NamedTuple):
    """How far a reader of a job has come: the last event and the last metric that it has."""

    seq: int = 0
    step: int = 0


class Happening(NamedTuple):
    cursor: Cursor
    """After it."""
    type: str
    data: dict[str, Any]


def record(
    session: Session, job_id: str, attempt: int, batch: Sequence[events.Event], lease: timedelta
) -> RequestedAction | None:
    """Writes a batch of the trainer's events, renews the lease, and returns the requested action.

    A step that is there already stays as it is. Raises StaleAttempt, and then writes nothing.
    """
    told = [event for event in batch if not isinstance(event, events.Metric)]
    columns: dict[str, Any] = {
        "event_count": Job.event_count + len(told),
        "lease_expires_at": func.now() + lease,
    }
    for event in told:
        if isinstance(event, events.Started):
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
    if told:
        session.execute(
            insert(Event),
            [
                {"job_id": job_id, "seq": seq, "time": e.time, "type": e.type, "data": _clean(events.event_data(e))}
                for seq, e in enumerate(told, start=last_seq - len(told) + 1)
            ],
        )
    _keep(session, job_id, attempt, batch)
    return requested_action


def _clean(data: dict[str, Any]) -> dict[str, Any]:
    """A model may generate any character: PostgreSQL's text holds no NUL, and UTF-8 no half of a surrogate pair."""
    return {
        name: value.encode(errors="replace").decode().replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in data.items()
    }


def catch_up(
    session: Session, job_id: str, attempt: int, before: int, batch: Sequence[events.Event], lease: timedelta
) -> None:
    """Writes what attempt `before` had told to its run folder, perhaps to that alone, when its worker was lost.

    `attempt` goes on from there, and holds the lease, which is renewed. Raises StaleAttempt, and then writes nothing.
    """
    jobs.renew(session, job_id, attempt, lease)
    _keep(session, job_id, before, batch)


def _keep(session: Session, job_id: str, attempt: int, batch: Sequence[events.Event]) -> None:
    """Metrics and artifacts: each once, however often it is told."""
    for event in batch:
        if isinstance(event, events.Started):
            # An attempt before may have come further than this one starts: what it told there is not of this adapter.
            session.execute(delete(Metric).where(Metric.job_id == job_id, Metric.step > event.resumed_step))
    rows = [{"job_id": job_id, **e.model_dump(exclude={"type"})} for e in batch if isinstance(e, events.Metric)]
    if rows:
        session.execute(upsert(Metric).on_conflict_do_nothing(), rows)
    for event in batch:
        if isinstance(event, events.Checkpoint):
            artifacts.add_checkpoint(session, job_id, attempt, event)


def curves(
    session: Session | Connection, job_id: str, owner: str | None, since_step: int, limit: int, downsample: int | None
) -> str | None:
    """The metrics after `since_step`, the first `limit` of them, as columns, and all evaluations: the text of a JSON
    object. None where there is no such job of `owner`, or for None of anybody.

    `downsample` thins them to about so many steps at even distances; the last one stays. PostgreSQL writes the JSON, in
    one query: to make Python objects of 10,000 steps, only to write them out again, takes three times as long.
    """
    asked = {"id": job_id, "owner": owner, "since": since_step, "limit": limit, "points": downsample or limit}
    return session.scalar(_CURVES, asked)


# In a group the rows come as the subquery has put them: to sort them anew for each column costs more than all the rest.
_CURVES = text(
    f"""
    SELECT json_build_object('job_id', id, 'columns', columns, 'evaluations', evaluations)::text
    FROM jobs, LATERAL (
        SELECT json_build_object({", ".join(f"'{name}', coalesce(json_agg({name}), '[]')" for name in METRIC_COLUMNS)})
        FROM (
            SELECT {", ".join(METRIC_COLUMNS)} FROM (
                SELECT *, row_number() OVER (ORDER BY step DESC) AS number, count(*) OVER () AS count FROM (
                    SELECT * FROM metrics WHERE job_id = :id AND step > :since ORDER BY step LIMIT :limit
                ) AS read
            ) AS numbered
            WHERE (number - 1) % greatest(1, ceil(count / CAST(:points AS float))::int) = 0
            ORDER BY step
        ) AS thinned
    ) AS told (columns), LATERAL (
        SELECT json_build_object(
            'step', coalesce(json_agg(step), '[]'), 'eval_loss', coalesce(json_agg(eval_loss), '[]')
        )
        FROM (
            SELECT DISTINCT ON ((data ->> 'step')::int) (data ->> 'step')::int AS step, data -> 'eval_loss' AS eval_loss
            FROM events WHERE job_id = :id AND type = 'evaluation' ORDER BY (data ->> 'step')::int, seq DESC
        ) AS last
    ) AS evaluated (evaluations)
    WHERE id = :id AND owner = coalesce(CAST(:owner AS text), owner)
    """
)


def samples(session: Session, job_id: str, step: int | None) -> list[dict[str, Any]]:
    """The samples of the evaluation at `step`, or of the latest one that has any, by index."""
    told = select(Event.data).where(Event.job_id == job_id, Event.type == "sample").order_by(Event.seq)
    if step is None:
        newest = session.scalar(told.order_by(None).order_by(Event.seq.desc()).limit(1))
        if newest is None:
            return []
        step = newest["step"]
    # An attempt that goes on from before that step tells its samples again.
    by_index = {data["index"]: data for data in session.scalars(told.where(Event.data["step"].as_integer() == step))}
    return [by_index[index] for index in sorted(by_index)]


class Latest(NamedTuple):
    metric: Metric
    """The last one."""
    eval_loss: float | None
    """Of the last evaluation."""
    done: dict[str, Any]
    """What the last attempt that ended as it should has told at its end; empty before."""


def latest(session: Session, job_ids: Sequence[str]) -> dict[str, Latest]:
    """How far each job has come that has a metric."""
    metrics = session.scalars(_LAST_METRICS, {"ids": list(job_ids)}).all()
    if not metrics:
        return {}
    ends = session.scalars(_LAST_ENDS, {"ids": [metric.job_id for metric in metrics]})
    last = {(event.job_id, event.type): event.data for event in ends}
    return {
        metric.job_id: Latest(
            metric, last.get((metric.job_id, "evaluation"), {}).get("eval_loss"), last.get((metric.job_id, "done"), {})
        )
        for metric in metrics
    }


_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_LAST_METRICS = (
    select(Metric)
    .where(Metric.job_id.in_(_IDS))
    .ext(distinct_on(Metric.job_id))
    .order_by(Metric.job_id, Metric.step.desc())
)
_LAST_ENDS = (
    select(Event)
    .where(Event.job_id.in_(_IDS), Event.type.in_(["evaluation", "done"]))
    .ext(distinct_on(Event.job_id, Event.type))
    .order_by(Event.job_id, Event.type, Event.seq.desc())
)


class News(NamedTuple):
    """Of one job, all as of one moment."""

    status: JobStatus
    end: Cursor
    """Of all that there is."""
    happenings: list[Happening]


# Written out: it is three lateral reads along primary keys, which is plain in SQL alone.
_NEWS = text(
    f"""
    WITH asked AS (SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:seqs AS int[]), CAST(:steps AS int[]))
                   AS asked (job_id, seq, step))
    SELECT id, NULL AS kind, event_count AS seq, last.step, NULL AS time, status AS type, NULL AS data
    FROM jobs, LATERAL (SELECT coalesce(max(step), 0) AS step FROM metrics WHERE job_id = id) AS last
    WHERE id = ANY(CAST(:ids AS text[]))
    UNION ALL
    SELECT asked.job_id, 'event', told.seq, NULL, told.time, told.type, told.data
    FROM asked, LATERAL (SELECT * FROM events WHERE job_id = asked.job_id AND seq > asked.seq
                         ORDER BY seq LIMIT :limit) AS told
    UNION ALL
    SELECT asked.job_id, 'metric', NULL, told.step, told.time, 'metric', row_to_json(told)
    FROM asked, LATERAL (SELECT {", ".join(METRIC_COLUMNS)} FROM metrics
                         WHERE job_id = asked.job_id AND step > asked.step
                         ORDER BY step LIMIT :limit) AS told
    """
)


def news(session: Session, cursors: Mapping[str, Cursor], limit: int) -> dict[str, News]:
    """The first `limit` happenings of each job after its cursor, metrics and events merged by their times. One query,
    however many the jobs; those that are not there are left out."""
    asked = {"seqs": [each.seq for each in cursors.values()], "steps": [each.step for each in cursors.values()]}
    rows: dict[tuple[str, str | None], list[Any]] = {}
    for row in session.execute(_NEWS, {"ids": list(cursors), "limit": limit, **asked}):
        rows.setdefault((row.id, row.kind), []).append(row)
    return {
        job_id: News(
            JobStatus(row.type),
            Cursor(row.seq, row.step),
            _merged(cursors[job_id], rows.get((job_id, "event"), []), rows.get((job_id, "metric"), []), limit),
        )
        for (job_id, kind), (row, *_) in rows.items()
        if kind is None
    }


def _merged(cursor: Cursor, told: list[Any], steps: list[Any], limit: int) -> list[Happening]:
    told.sort(key=lambda row: row.seq)
    steps.sort(key=lambda row: row.step)
    happenings = []
    # A merge, not a sort: clocks of two machines may disagree, yet neither sequence may be told out of its own order.
    for row in islice(heapq.merge(told, steps, key=lambda row: row.time), limit):
        if row.kind == "event":
            cursor = cursor._replace(seq=row.seq)
            happenings.append(Happening(cursor, row.type, {"time": row.time, **row.data}))
        else:
            cursor = cursor._replace(step=row.step)
            happenings.append(Happening(cursor, row.type, row.data))
    return happenings


def events_since(session: Session, job_id: str, cursor: Cursor, limit: int) -> list[Happening]:
    """The first `limit` happenings after `cursor`; none where there is no such job."""
    found = news(session, {job_id: cursor}, limit).get(job_id)
    return found.happenings if found else []
