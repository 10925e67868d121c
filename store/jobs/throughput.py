"""The speed of past jobs, from their metrics."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session

from contract.recipe import Recipe
from contract.status import JobStatus
from store.models import Event, Job, StepMetric

_RECENT = 500
_LATEST = 5


class Throughput(NamedTuple):
    tokens_per_second: float
    """Tokens per second on all devices of a job together, from the second step on."""
    cold_start_seconds: float
    """Time of the first step beyond what it takes at that speed."""
    jobs: int
    """Number of past jobs that the speed was measured on."""


def throughput(session: Session, recipe: Recipe, device: str, precision: str) -> Throughput | None:
    """The median of the latest jobs with the same model, method and precision on as many devices of the kind; None
    without any. `device` is the beginning of the trainer's name for it: a GPU's name, or "CPU"."""
    parameters = {
        "model": recipe.model,
        "base_bits": None if recipe.base_bits is None else str(recipe.base_bits),
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "torch_compile": recipe.torch_compile,
        "method": recipe.method.type,
        "devices": recipe.resources.gpus * recipe.resources.nodes,
        "device": device,
        "precision": precision,
    }
    found, cold, jobs = session.execute(_THROUGHPUT, parameters).one()
    return None if found is None else Throughput(float(found), max(0.0, float(cold or 0)), jobs)


def _throughput() -> Select[float, float, int]:
    recent = select(Job).order_by(Job.created_at.desc()).limit(_RECENT).subquery()
    resources = recent.c.recipe["resources"]
    like = (
        recent.c.status == JobStatus.SUCCEEDED,
        recent.c.recipe["model"].as_string() == bindparam("model"),
        recent.c.recipe["base_bits"].as_string().is_not_distinct_from(bindparam("base_bits")),
        recent.c.recipe["gradient_checkpointing"].as_boolean() == bindparam("gradient_checkpointing"),
        func.coalesce(recent.c.recipe["torch_compile"].as_boolean(), False) == bindparam("torch_compile"),
        func.coalesce(recent.c.recipe["method"]["type"].as_string(), "sft") == bindparam("method"),
        resources["gpus"].as_integer() * resources["nodes"].as_integer() == bindparam("devices"),
        Event.type == "started",
        func.starts_with(Event.data["device"].as_string(), bindparam("device")),
        Event.data["precision"].as_string() == bindparam("precision"),
    )
    latest = (
        select(recent.c.id)
        .join(Event, Event.job_id == recent.c.id)
        .where(*like)
        .group_by(recent.c.id, recent.c.finished_at)
        .order_by(recent.c.finished_at.desc())
        .limit(_LATEST)
        .subquery()
    )
    seconds, first = StepMetric.tokens / StepMetric.tokens_per_second, StepMetric.step == 1
    speed = func.sum(StepMetric.tokens).filter(~first) / func.sum(seconds).filter(~first)
    cold_start = func.sum(seconds).filter(first) - func.sum(StepMetric.tokens).filter(first) / speed
    of_jobs = (
        select(speed.label("speed"), cold_start.label("cold_start"))
        .where(StepMetric.job_id.in_(select(latest.c.id)), StepMetric.tokens_per_second > 0)
        .group_by(StepMetric.job_id)
        .subquery()
    )
    columns = (_median(of_jobs.c.speed), _median(of_jobs.c.cold_start), func.count(of_jobs.c.speed))
    return select(*columns)


def _median(column: ColumnElement[float]) -> ColumnElement[float]:
    return func.percentile_cont(0.5).within_group(column)


_THROUGHPUT = _throughput()
"""Made once: to put it together takes longer than to run it."""
