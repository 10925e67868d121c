"""Jobs with all that is known of them, as one moment has it."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.access.principal import Principal
from store.jobs import jobs, progress
from store.jobs.details import JobDetails
from store.jobs.jobs import QueuedJob
from store.jobs.progress import Cursor, JobUpdate
from store.jobs.summaries import Summary
from store.scheduling import scheduler
from store.scheduling.situation import Wait
from store.session import Sessions, read_snapshot

_JOB_ID = re.compile(r"job_[0-9a-f]{24}")


class JobView(NamedTuple):
    job: JobDetails
    wait: Wait | None
    """What it waits for, where it waits and that was looked up."""


def views(session: Session, who: Principal, found: Sequence[JobDetails]) -> list[JobView]:
    """One scheduling plan tells what all those of them that wait are waiting for."""
    queued = [QueuedJob(job.id, job.owner, job.shape) for job in found if job.status == JobStatus.QUEUED]
    waits = _outlook(session, who, queued) if queued else {}
    return [JobView(job, waits.get(job.id) or cluster_wait(job)) for job in found]


def cluster_wait(job: JobDetails | Summary) -> Wait | None:
    """Why a cluster has not started it, where it was handed to one."""
    return Wait(**job.cluster_wait) if job.cluster_wait and job.status == JobStatus.RUNNING else None


def _outlook(session: Session, who: Principal, queued: Sequence[QueuedJob]) -> dict[str, Wait]:
    waits = scheduler.outlook(session, queued)
    return waits if who.admin else _without_others(session, waits, who.owner)


def _without_others(session: Session, waits: Mapping[str, Wait], owner: str) -> dict[str, Wait]:
    """Without the names of jobs that are not the owner's."""
    named = {job_id for wait in waits.values() for job_id in _JOB_ID.findall(wait.reason)}
    own = jobs.owned(session, named, owner) if named else set()
    return {job_id: _readable(wait, own) for job_id, wait in waits.items()}


def _readable(wait: Wait, own: Collection[str]) -> Wait:
    def sentence(text: str) -> str:
        return _JOB_ID.sub(lambda found: found[0] if found[0] in own else "another's job", text)

    def value(given: Any) -> Any:
        if isinstance(given, list):
            return [value(each) for each in given]
        # Null where the sentence says that it is another's.
        return None if isinstance(given, str) and _JOB_ID.fullmatch(given) and given not in own else given

    values = {name: value(given) for name, given in wait.values.items()}
    return replace(wait, reason=sentence(wait.reason), values=values)


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
    own: dict[str, set[str]] = defaultdict(set)
    for job_id, owner in owners.items():
        own[owner].add(job_id)
    return {job.id: (_readable(waits[job.id], own[job.owner]), waits[job.id]) for job in queued if job.id in waits}


def news(sessions: Sessions, cursors: Mapping[str, Cursor], limit: int) -> dict[str, JobUpdate]:
    """The first `limit` events after each job's cursor, of the jobs that exist."""
    with sessions.begin() as session:
        return progress.updates(session, cursors, limit)
