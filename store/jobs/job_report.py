"""Everything that a job's report is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from store.jobs import jobs
from store.jobs.progress import METRIC_COLUMNS
from store.models import Event, Job, StepMetric


@dataclass(frozen=True)
class JobReport:
    job: Job
    columns: tuple[str, ...]
    metrics: Sequence[Row[Any]]
    """Rows by step, with the values of `columns`."""
    evaluations: list[dict[str, Any]]
    """Data of each event contract.events.Evaluation, by step."""
    started: dict[str, Any]
    """Data of the latest event contract.events.Started; empty without one."""
    done: dict[str, Any]
    """Data of the latest event contract.events.Done; empty without one."""


def gather(session: Session, job_id: str) -> JobReport:
    """Reads the report of a job. Raises JobNotFound."""
    query = select(Event.type, Event.data).where(
        Event.job_id == job_id, Event.type.in_(["started", "done", "evaluation"])
    )
    latest: dict[str, dict[str, Any]] = {}
    evaluations: dict[int, dict[str, Any]] = {}
    for kind, data in session.execute(query.order_by(Event.seq)):
        latest[kind] = data
        if kind == "evaluation":
            evaluations[data["step"]] = data
    columns = [StepMetric.__table__.c[name] for name in METRIC_COLUMNS]
    metrics = session.execute(select(*columns).where(StepMetric.job_id == job_id).order_by(StepMetric.step)).all()
    return JobReport(
        jobs.get(session, job_id),
        METRIC_COLUMNS,
        metrics,
        [evaluations[step] for step in sorted(evaluations)],
        latest.get("started", {}),
        latest.get("done", {}),
    )
