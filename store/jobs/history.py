"""What a job has told, newest first."""

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.jobs.progress import METRIC_COLUMNS, Cursor, Happening
from store.models import Event, Job, Metric


def newest(session: Session, job_id: str, upto: Cursor | None, limit: int) -> list[Happening]:
    """The last `limit` happenings of those that a reader at `upto` has, or of all; each with the cursor after it, as
    progress.events_since tells them."""
    told = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc()).limit(limit)
    steps = select(Metric).where(Metric.job_id == job_id).order_by(Metric.step.desc()).limit(limit)
    if upto is not None:
        told, steps = told.where(Event.seq <= upto.seq), steps.where(Metric.step <= upto.step)
    events, metrics = session.scalars(told).all(), session.scalars(steps).all()
    cursor = Cursor(events[0].seq if events else 0, metrics[0].step if metrics else 0)
    merged: Iterable[Event | Metric] = heapq.merge(events, metrics, key=lambda row: -row.time)
    found = []
    for row in islice(merged, limit):
        if isinstance(row, Event):
            cursor = cursor._replace(seq=row.seq)
            found.append(Happening(cursor, row.type, {"time": row.time, **row.data}))
            cursor = cursor._replace(seq=row.seq - 1)
        else:
            cursor = cursor._replace(step=row.step)
            found.append(Happening(cursor, "metric", {name: getattr(row, name) for name in METRIC_COLUMNS}))
            cursor = cursor._replace(step=row.step - 1)
    return found


def metrics_at(session: Session, job_id: str, steps: Sequence[int]) -> dict[int, Metric]:
    found = session.scalars(select(Metric).where(Metric.job_id == job_id, Metric.step.in_(steps)))
    return {metric.step: metric for metric in found}


def all_metrics(session: Session, job_id: str) -> Sequence[Row[int, float, float]]:
    """Step, loss and learning rate of every step."""
    columns = select(Metric.step, Metric.loss, Metric.learning_rate)
    return session.execute(columns.where(Metric.job_id == job_id).order_by(Metric.step)).all()


def evaluations(session: Session, job_id: str) -> dict[int, float]:
    """The loss of each evaluation by its step; of one that was made again the last."""
    told = select(Event.data).where(Event.job_id == job_id, Event.type == "evaluation").order_by(Event.seq)
    return {data["step"]: data["eval_loss"] for data in session.scalars(told)}


def trained_tokens(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Of jobs that have succeeded: all tokens that they were trained on, each as often as it came."""
    done = select(Job.id).where(Job.id.in_(job_ids), Job.status == JobStatus.SUCCEEDED)
    counted = select(Metric.job_id, func.sum(Metric.tokens)).where(Metric.job_id.in_(done)).group_by(Metric.job_id)
    return {job_id: int(tokens) for job_id, tokens in session.execute(counted)}
