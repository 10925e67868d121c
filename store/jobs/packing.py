"""How documents went through a model, as its latest job has reported it."""

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.models import Event, Job


class ReportedPacking(NamedTuple):
    packed: bool
    """Whether together. Otherwise one by one."""
    because: str


def reported_packing(session: Session, model: str) -> ReportedPacking | None:
    """Of the latest job with this model; None if none has started."""
    latest = (
        select(Event.data)
        .join(Job, Job.id == Event.job_id)
        .where(Event.type == "started", Job.recipe["model"].as_string() == model)
        .order_by(Job.created_at.desc(), Event.seq.desc())
        .limit(1)
    )
    data = session.execute(latest).scalar()
    return ReportedPacking(data["packed"], data["packing"]) if data and data.get("packing") else None
