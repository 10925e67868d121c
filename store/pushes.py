"""Pushes: a job's artifacts on their way to a model hub, requested by their owner and uploaded by the API."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from contract import ids
from store import artifacts
from store.access import quotas
from store.access.principal import Principal
from store.errors import PushNotFound, QuotaExceeded
from store.jobs import jobs
from store.models import Push
from store.paging import newest_first

LONGEST_ERROR = 1000
MOST = 100
"""Most pushes of one owner that have not ended. Each process uploads two at once."""


@dataclass(frozen=True)
class PushTiming:
    lease: timedelta = timedelta(seconds=30)
    """How long other processes leave a push alone whose process is not heard of."""
    first_wait: timedelta = timedelta(seconds=5)
    """Wait after a failed try; each further one doubles it."""
    longest_wait: timedelta = timedelta(minutes=5)
    give_up: timedelta = timedelta(days=1)
    """How long after its request it is tried."""


@dataclass(frozen=True)
class WantedPush:
    artifact: str
    """Name of an adapter, a checkpoint or an export, or artifacts.BEST."""
    repo: str
    revision: str | None
    private: bool
    secret: str


@dataclass(frozen=True)
class Uploaded:
    url: str
    """Address of the repo."""
    commit_url: str


def request(session: Session, who: Principal, job_id: str, wanted: WantedPush) -> tuple[Push, bool]:
    """The push of an artifact, and whether it is new: the same one is returned again until it has ended. Raises
    JobNotFound, ArtifactNotFound, QuotaExceeded."""
    job = jobs.lock(session, job_id, who.scope)
    artifact = artifacts.get(session, job.id, wanted.artifact)
    values: dict[str, Any] = asdict(wanted) | {"job_id": job.id, "artifact": artifact.name, "owner": who.owner}
    same = [getattr(Push, name).is_not_distinct_from(value) for name, value in values.items()]
    found = session.scalar(select(Push).where(*same, Push.due_at.is_not(None)).limit(1))
    if found is not None:
        return found, False
    _check_count(session, who.owner)
    push = Push(id=ids.new_id(ids.PUSH), status="queued", claims=0, failures=0, **values)
    session.add(push)
    session.flush()
    return push, True


def _check_count(session: Session, owner: str) -> None:
    """Checks that the owner may have another push. Raises QuotaExceeded."""
    quotas.count_one_by_one(session, f"pushes of {owner}")
    count = session.scalar(select(func.count()).where(Push.owner == owner, Push.due_at.is_not(None))) or 0
    if count >= MOST:
        raise QuotaExceeded(
            f"{owner} has {count} pushes that wait or run, and may have {MOST}; push more when some of them have ended"
        )


def get(session: Session, job_id: str, push_id: str) -> Push:
    """A push of the job. Raises PushNotFound."""
    push = session.get(Push, push_id)
    if push is None or push.job_id != job_id:
        raise PushNotFound(job_id, push_id)
    return push


def list_pushes(session: Session, job_id: str, limit: int, after: str | None) -> list[Push]:
    """One page of pushes, newest first; `after` is the last id of the page before. Raises PushNotFound."""
    last = None if after is None else get(session, job_id, after)
    query = select(Push).where(Push.job_id == job_id)
    return list(session.scalars(newest_first(query, Push, limit, last)))


@dataclass(frozen=True)
class ClaimedPush:
    """A push that one process uploads now."""

    id: str
    claims: int
    """Guards what the process records."""
    job_id: str
    owner: str
    artifact: str
    repo: str
    revision: str | None
    private: bool
    secret: str


def claim(session: Session, limit: int, timing: PushTiming) -> list[ClaimedPush]:
    """Those that are due, also because the process that had them is not heard of any more."""
    due = select(Push).where(Push.due_at <= func.now()).order_by(Push.due_at).limit(limit)
    taken = session.scalars(due.with_for_update(skip_locked=True)).all()
    for push in taken:
        push.status, push.claims = "running", push.claims + 1
        push.due_at = func.now() + timing.lease
    return [_claimed(push) for push in taken]


def _claimed(push: Push) -> ClaimedPush:
    return ClaimedPush(
        id=push.id,
        claims=push.claims,
        job_id=push.job_id,
        owner=push.owner,
        artifact=push.artifact,
        repo=push.repo,
        revision=push.revision,
        private=push.private,
        secret=push.secret,
    )


def renew(session: Session, claimed: ClaimedPush, timing: PushTiming) -> bool:
    """Extends the lease; False where the push is another process's by now, or was deleted."""
    return _update(session, claimed, {"due_at": func.now() + timing.lease})


def release(session: Session, claimed: ClaimedPush) -> None:
    """Gives it back, to whichever process comes first."""
    _update(session, claimed, {"status": "queued", "due_at": func.now()})


def succeed(session: Session, claimed: ClaimedPush, uploaded: Uploaded) -> None:
    values = {"status": "succeeded", "error": None, "due_at": None, "finished_at": func.now()}
    _update(session, claimed, values | asdict(uploaded))


def fail(session: Session, claimed: ClaimedPush, error: str) -> None:
    """Ends a push that another try would not help."""
    values = {"status": "failed", "error": error[:LONGEST_ERROR], "due_at": None, "finished_at": func.now()}
    _update(session, claimed, values)


def postpone(session: Session, claimed: ClaimedPush, error: str, timing: PushTiming) -> None:
    """Has it tried again later, unless it was requested too long ago."""
    doubled = timing.first_wait * func.power(2, func.least(Push.failures, 20))
    is_over = Push.created_at < func.now() - timing.give_up
    values = {
        "status": case((is_over, "failed"), else_="queued"),
        "failures": Push.failures + 1,
        "error": error[:LONGEST_ERROR],
        "due_at": case((is_over, None), else_=func.now() + func.least(doubled, timing.longest_wait)),
        "finished_at": case((is_over, func.now()), else_=None),
    }
    _update(session, claimed, values)


def _update(session: Session, claimed: ClaimedPush, values: dict[str, Any]) -> bool:
    mine = (Push.id == claimed.id, Push.claims == claimed.claims, Push.status == "running")
    return session.scalar(update(Push).where(*mine).values(values).returning(Push.id)) is not None
