"""How fast jobs that have ended were, as their metrics tell."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from contract.recipe import Recipe
from contract.status import JobStatus
from store.models import Event, Job, Metric

_RECENT = 500
_LATEST = 5


class Throughput(NamedTuple):
    tokens_per_second: float
    """On all devices of a job together, from the second step on."""
    cold_start_seconds: float
    """What the first step took longer than at that speed."""
    jobs: int
    """That it was measured on."""


def throughput(session: Session, recipe: Recipe, device: str, precision: str) -> Throughput | None:
    """Of the latest jobs of the same model in the same precision, on as many such devices; None where there are none.
    `device` is the beginning of what a trainer calls it: a GPU's name, or "CPU"."""
    recent = select(Job).order_by(Job.created_at.desc()).limit(_RECENT).subquery()
    asked = recent.c.recipe["resources"]
    like = (
        recent.c.status == JobStatus.SUCCEEDED,
        recent.c.recipe["model"].as_string() == recipe.model,
        recent.c.recipe["base_bits"]
        .as_string()
        .is_not_distinct_from(None if recipe.base_bits is None else str(recipe.base_bits)),
        recent.c.recipe["gradient_checkpointing"].as_boolean() == recipe.gradient_checkpointing,
        func.coalesce(recent.c.recipe["torch_compile"].as_boolean(), False) == recipe.torch_compile,
        asked["gpus"].as_integer() * asked["nodes"].as_integer() == recipe.resources.gpus * recipe.resources.nodes,
        Event.type == "started",
        func.starts_with(Event.data["device"].as_string(), device),
        Event.data["precision"].as_string() == precision,
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
    seconds, first = Metric.tokens / Metric.tokens_per_second, Metric.step == 1
    speed = func.sum(Metric.tokens).filter(~first) / func.sum(seconds).filter(~first)
    cold_start = func.sum(seconds).filter(first) - func.sum(Metric.tokens).filter(first) / speed
    of_jobs = (
        select(speed.label("speed"), cold_start.label("cold_start"))
        .where(Metric.job_id.in_(select(latest.c.id)), Metric.tokens_per_second > 0)
        .group_by(Metric.job_id)
        .subquery()
    )
    columns = (_median(of_jobs.c.speed), _median(of_jobs.c.cold_start), func.count(of_jobs.c.speed))
    found, cold, jobs = session.execute(select(*columns)).one()
    return None if found is None else Throughput(float(found), max(0.0, float(cold or 0)), jobs)


def _median(column: ColumnElement[float]) -> ColumnElement[float]:
    return func.percentile_cont(0.5).within_group(column)
