"""The past events and metrics of jobs."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.jobs.progress import METRIC_COLUMNS, Cursor, StreamedEvent
from store.models import Event, Job, StepMetric


def list_latest(session: Session, job_id: str, upto: Cursor | None, limit: int) -> list[StreamedEvent]:
    """The latest `limit` events and metrics up to cursor `upto`, newest first, each with the cursor after it, as in
    progress.events_since."""
    events_query = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc()).limit(limit)
    metrics_query = select(StepMetric).where(StepMetric.job_id == job_id).order_by(StepMetric.step.desc()).limit(limit)
    if upto is not None:
        events_query = events_query.where(Event.seq <= upto.seq)
        metrics_query = metrics_query.where(StepMetric.step <= upto.step)
    events, metrics = session.scalars(events_query).all(), session.scalars(metrics_query).all()
    cursor = Cursor(events[0].seq if events else 0, metrics[0].step if metrics else 0)
    merged: Iterable[Event | StepMetric] = heapq.merge(events, metrics, key=lambda row: -row.time)
    found = []
    for row in islice(merged, limit):
        if isinstance(row, Event):
            cursor = cursor._replace(seq=row.seq)
            found.append(StreamedEvent(cursor, row.type, {"time": row.time, **row.data}))
            cursor = cursor._replace(seq=row.seq - 1)
        else:
            cursor = cursor._replace(step=row.step)
            found.append(StreamedEvent(cursor, "metric", {name: getattr(row, name) for name in METRIC_COLUMNS}))
            cursor = cursor._replace(step=row.step - 1)
    return found


def metrics_at(session: Session, job_id: str, steps: Sequence[int]) -> dict[int, StepMetric]:
    found = session.scalars(select(StepMetric).where(StepMetric.job_id == job_id, StepMetric.step.in_(steps)))
    return {metric.step: metric for metric in found}


def evaluations_at(session: Session, job_id: str, steps: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The data of the last evaluation at each of the steps that has one."""
    step = Event.data["step"].as_integer()
    query = select(Event.data).where(Event.job_id == job_id, Event.type == "evaluation", step.in_(steps))
    return {data["step"]: data for data in session.scalars(query.order_by(Event.seq))}


def started(session: Session, job_id: str) -> dict[str, Any]:
    """The data of the latest event `started`; empty before the first."""
    query = select(Event.data).where(Event.job_id == job_id, Event.type == "started")
    return session.scalar(query.order_by(Event.seq.desc()).limit(1)) or {}


def trained_tokens(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """The number of tokens that each of the jobs that have succeeded was trained on, repeats included."""
    done = select(Job.id).where(Job.id.in_(job_ids), Job.status == JobStatus.SUCCEEDED)
    counted = (
        select(StepMetric.job_id, func.sum(StepMetric.tokens))
        .where(StepMetric.job_id.in_(done))
        .group_by(StepMetric.job_id)
    )
    return {job_id: int(tokens) for job_id, tokens in session.execute(counted)}
