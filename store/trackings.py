"""How far the trackers of jobs are, and who sends them what is new."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.orm import Session

from contract.status import TERMINAL, JobStatus
from store.jobs import progress
from store.jobs.progress import Cursor, StreamedEvent
from store.models import Job, StepMetric, TrackedRun

LONGEST_ERROR = 500


@dataclass(frozen=True)
class TrackingTiming:
    first_wait: timedelta = timedelta(seconds=5)
    """Wait after a failed send; each further one doubles it."""
    longest_wait: timedelta = timedelta(minutes=5)
    give_up: timedelta = timedelta(days=7)
    """How long after the end of its job a tracker is tried."""


class Position(NamedTuple):
    """What a tracker has of a job."""

    seq: int
    """The last event."""
    step: int
    """The last step with metrics."""
    eval_step: int
    """The last evaluation's step; -1 before the first."""


START = Position(0, 0, -1)


@dataclass(frozen=True)
class Followed:
    """A job whose news one follower sends to one tracker."""

    job_id: str
    type: str
    claims: int
    """Guards what the follower records."""
    run: str | None
    """Id of the run in the tracker; None before there is one."""
    position: Position
    is_certain: bool
    """Whether the tracker has what `position` says, and nothing more."""
    owner: str
    name: str | None
    tags: dict[str, Any]
    recipe: dict[str, Any]
    created_ms: int

    @property
    def place(self) -> dict[str, Any]:
        """The part of the recipe that describes the tracker."""
        found: dict[str, Any] = self.recipe["tracking"][self.type]
        return found


class News(NamedTuple):
    """The first events and metrics that a tracker lacks."""

    events: list[StreamedEvent]
    is_all: bool
    """Whether there is no more now."""
    has_ended: bool
    """Whether the job has."""


def follow_again(session: Session, job_id: str) -> None:
    """Has the trackers of an ended job follow it on, since it is retried. A follower that is still sending how the job
    ended has lost it: else that one would record that nothing is left to send."""
    again = {"due_at": func.now(), "failures": 0, "claims": TrackedRun.claims + 1}
    session.execute(update(TrackedRun).where(TrackedRun.job_id == job_id).values(again))


def claim(session: Session, claimed: Mapping[str, timedelta], limit: int) -> list[Followed]:
    """Jobs with news for trackers of these types now. `claimed` says by type how long other followers leave such a job
    alone; then this one counts as dead."""
    further = select(StepMetric.step).where(StepMetric.job_id == TrackedRun.job_id, StepMetric.step > TrackedRun.step)
    due = (
        select(TrackedRun, Job)
        .join(Job, Job.id == TrackedRun.job_id)
        .where(TrackedRun.type.in_(claimed), TrackedRun.due_at <= func.now())
        .where(or_(Job.event_count > TrackedRun.seq, further.exists()))
        .order_by(TrackedRun.due_at)
        .limit(limit)
        .with_for_update(of=TrackedRun, skip_locked=True)
    )
    taken = []
    for tracking, job in session.execute(due).all():
        taken.append(_followed(tracking, job))
        tracking.claims += 1
        tracking.due_at = func.now() + claimed[tracking.type]
        tracking.is_certain = False
    return taken


def _followed(tracking: TrackedRun, job: Job) -> Followed:
    return Followed(
        job_id=job.id,
        type=tracking.type,
        claims=tracking.claims + 1,
        run=tracking.run,
        position=Position(tracking.seq, tracking.step, tracking.eval_step),
        is_certain=tracking.is_certain,
        owner=job.owner,
        name=job.name,
        tags=dict(job.tags or {}),
        recipe=job.recipe,
        created_ms=int(job.created_at.timestamp() * 1000),
    )


def read_news(session: Session, followed: Followed, limit: int) -> News | None:
    """At most `limit` events and metrics after the position. None where the job was deleted."""
    position = followed.position
    found = progress.updates(session, {followed.job_id: Cursor(position.seq, position.step)}, limit)
    if followed.job_id not in found:
        return None
    job = found[followed.job_id]
    last = job.events[-1].cursor if job.events else Cursor(position.seq, position.step)
    is_all = last.seq >= job.end.seq and last.step >= job.end.step
    return News(job.events, is_all, job.status in TERMINAL)


def record(session: Session, followed: Followed, news: News, next_look: timedelta) -> bool:
    """Records that the tracker has what `followed` now says, of which `news` was the last part. Returns whether the
    follower still has the job."""
    is_over = news.is_all and news.has_ended
    values: dict[str, Any] = {"run": followed.run, **followed.position._asdict(), "updated_at": func.now()}
    values |= {"failures": 0, "error": None, "is_certain": news.is_all}
    values["due_at"] = None if is_over else func.now() + next_look
    return _update(session, followed, values)


def postpone(session: Session, followed: Followed, next_look: timedelta) -> None:
    """Gives the job back without having sent anything."""
    _update(session, followed, {"is_certain": followed.is_certain, "due_at": func.now() + next_look})


def record_failure(session: Session, followed: Followed, error: str, timing: TrackingTiming) -> None:
    """Has the tracker tried again later, unless its job has ended long ago."""
    doubled = timing.first_wait * func.power(2, func.least(TrackedRun.failures, 20))
    over = select(Job.id).where(Job.id == followed.job_id, Job.finished_at < func.now() - timing.give_up)
    due_at = case((over.exists(), None), else_=func.now() + func.least(doubled, timing.longest_wait))
    _update(session, followed, {"failures": TrackedRun.failures + 1, "error": error[:LONGEST_ERROR], "due_at": due_at})


def _update(session: Session, followed: Followed, values: dict[str, Any]) -> bool:
    mine = (
        TrackedRun.job_id == followed.job_id,
        TrackedRun.type == followed.type,
        TrackedRun.claims == followed.claims,
    )
    return session.scalar(update(TrackedRun).where(*mine).values(values).returning(TrackedRun.job_id)) is not None


class StatusChange(NamedTuple):
    status: JobStatus
    time: float


def last_status(news: News) -> StatusChange | None:
    changes = [each.data for each in news.events if each.type == "status"]
    return StatusChange(JobStatus(changes[-1]["status"]), changes[-1]["time"]) if changes else None
