"""What a job has taken so far: memory, time and disk."""

from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import artifacts
from store.jobs import history
from store.models import Job, StepMetric


class MeasuredUsage(NamedTuple):
    started: dict[str, Any]
    """Data of the latest event contract.events.StartedEvent; empty without one."""
    steps: int
    tokens: int
    peak_memory_bytes: int | None
    training_seconds: float
    artifact_bytes: int


def read(session: Session, job: Job) -> MeasuredUsage:
    metrics = select(
        func.count(),
        func.coalesce(func.sum(StepMetric.tokens), 0),
        func.max(StepMetric.memory_bytes),
        func.coalesce(func.sum(StepMetric.tokens / func.nullif(StepMetric.tokens_per_second, 0)), 0.0),
    ).where(StepMetric.job_id == job.id)
    steps, tokens, memory, seconds = session.execute(metrics).one()
    saved = artifacts.count_bytes(session, job.id)
    return MeasuredUsage(history.started(session, job.id), steps, int(tokens), memory, float(seconds), saved)
