"""Jobs with all that is known of them, as one moment has it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session

from contract.status import JobStatus
from store import trackings
from store.access.principal import Principal
from store.jobs import jobs, progress
from store.jobs.progress import Cursor, JobUpdate, Latest
from store.models import Job, TrackedRun
from store.scheduling import leases, scheduler
from store.scheduling.situation import DeviceRef, Wait
from store.session import Sessions, read_snapshot

_JOB_ID = re.compile(r"job_[0-9a-f]{24}")


@dataclass(frozen=True)
class JobView:
    job: Job
    latest: Latest | None = None
    """Its last metric."""
    wait: Wait | None = None
    """What it waits for, where it waits and that was looked up."""
    devices: Sequence[DeviceRef] = field(default_factory=tuple)
    trackings: Sequence[TrackedRun] = field(default_factory=tuple)
    """How far its trackers are."""


def views(session: Session, who: Principal, found: Sequence[Job]) -> list[JobView]:
    """One scheduling plan tells what all those of them that wait are waiting for."""
    queued = [job for job in found if job.status is JobStatus.QUEUED]
    waits = _outlook(session, who, queued) if queued else {}
    latest = progress.latest(session, [job.id for job in found if job.attempt > 0])
    leased = leases.get_devices(session, [job.id for job in found])
    tracked = trackings.of_jobs(session, [job.id for job in found if _is_tracked(job)])
    return [
        JobView(job, latest.get(job.id), waits.get(job.id), leased.get(job.id, []), tracked.get(job.id, []))
        for job in found
    ]


def _is_tracked(job: Job) -> bool:
    # A recipe of before has no such section.
    section = job.recipe.get("tracking") or {}
    return any(section.get(name) for name in ("mlflow", "wandb"))


def _outlook(session: Session, who: Principal, queued: Sequence[Job]) -> dict[str, Wait]:
    waits = scheduler.outlook(session, queued)
    return waits if who.admin else _without_others(session, waits, who.owner)


def _without_others(session: Session, waits: Mapping[str, Wait], owner: str) -> dict[str, Wait]:
    """Without the names of jobs that are not the owner's."""
    named = {job_id for wait in waits.values() for job_id in _JOB_ID.findall(wait.reason)}
    own = jobs.owned(session, named, owner) if named else set()

    def readable(reason: str) -> str:
        return _JOB_ID.sub(lambda found: found[0] if found[0] in own else "another's job", reason)

    return {job_id: replace(wait, reason=readable(wait.reason)) for job_id, wait in waits.items()}


def waits_of(sessions: Sessions, job_ids: Sequence[str]) -> dict[str, Wait]:
    """What those of the jobs that wait are waiting for, in words that their owners may read."""
    with read_snapshot(sessions) as session:
        found = [job for job in jobs.get_jobs(session, job_ids) if job.status is JobStatus.QUEUED]
        waits = scheduler.outlook(session, found) if found else {}
        readable: dict[str, Wait] = {}
        for owner in {job.owner for job in found}:
            own = {job.id: waits[job.id] for job in found if job.owner == owner}
            readable |= _without_others(session, own, owner)
    return readable


Waits = dict[str, tuple[Wait, Wait]]
"""What queued jobs wait for: in words that their owners may read, and in those for admins."""


def waits_of_queue(sessions: Sessions) -> Waits:
    """What all queued jobs wait for."""
    with read_snapshot(sessions) as session:
        queued = jobs.list_queued(session)
        waits = scheduler.outlook(session, queued) if queued else {}
        owners = jobs.owners(session, {named for wait in waits.values() for named in _JOB_ID.findall(wait.reason)})
    return {job.id: (_readable(waits[job.id], owners, job.owner), waits[job.id]) for job in queued if job.id in waits}


def _readable(wait: Wait, owners: Mapping[str, str], owner: str) -> Wait:
    """Without the names of jobs that are not the owner's."""
    return replace(
        wait,
        reason=_JOB_ID.sub(lambda found: found[0] if owners.get(found[0]) == owner else "another's job", wait.reason),
    )


def news(sessions: Sessions, cursors: Mapping[str, Cursor], limit: int) -> dict[str, JobUpdate]:
    """The first `limit` events after each job's cursor, of the jobs that exist."""
    with sessions.begin() as session:
        return progress.updates(session, cursors, limit)
