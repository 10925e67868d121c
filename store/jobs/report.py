"""What there is to report of a job when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from store.jobs import jobs
from store.jobs.progress import METRIC_COLUMNS
from store.models import Event, Job, Metric


@dataclass(frozen=True)
class Report:
    job: Job
    columns: tuple[str, ...]
    metrics: Sequence[Row[Any]]
    """In the order of `columns`, by step."""
    evaluations: list[tuple[int, float]]
    """Step and loss."""
    started: dict[str, Any]
    """Of the latest attempt that told so, as contract.events.Started; empty where none did."""
    done: dict[str, Any]
    """Likewise Done."""


def gather(session: Session, job_id: str) -> Report:
    """Raises JobNotFound."""
    told = select(Event.type, Event.data).where(
        Event.job_id == job_id, Event.type.in_(["started", "done", "evaluation"])
    )
    latest: dict[str, dict[str, Any]] = {}
    evaluations: dict[int, float] = {}
    for kind, data in session.execute(told.order_by(Event.seq)):
        latest[kind] = data
        if kind == "evaluation":
            evaluations[data["step"]] = data["eval_loss"]
    columns = [Metric.__table__.c[name] for name in METRIC_COLUMNS]
    metrics = session.execute(select(*columns).where(Metric.job_id == job_id).order_by(Metric.step)).all()
    return Report(
        jobs.get(session, job_id),
        METRIC_COLUMNS,
        metrics,
        sorted(evaluations.items()),
        latest.get("started", {}),
        latest.get("done", {}),
    )
