"""How documents went through a model, as its latest job has reported it."""

from typing import NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from store.models import Event, Job


class ReportedPacking(NamedTuple):
    packed: bool
    """Whether together. Otherwise one by one."""
    because: str


def reported_packing(session: Session, model: str) -> ReportedPacking | None:
    """Of the latest job with this model; None if none has started."""
    data = session.scalar(_LATEST_STARTED, {"model": model})
    return ReportedPacking(data["packed"], data["packing"]) if data and data.get("packing") else None


_LATEST_STARTED = (
    select(Event.data)
    .join(Job, Job.id == Event.job_id)
    .where(Event.type == "started", Job.recipe["model"].as_string() == bindparam("model"))
    .order_by(Job.created_at.desc(), Event.seq.desc())
    .limit(1)
)
"""Made once: to put it together takes longer than to run it."""
