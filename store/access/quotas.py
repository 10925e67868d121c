"""Limits of what each owner may have at once. An owner without its own has those of EVERYBODY."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    Text,
    TextClause,
    bindparam,
    case,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from contract.status import JobStatus
from store.errors import QuotaExceeded
from store.models import Artifact, Blob, Dataset, Job, JobEvaluation, Quota

EVERYBODY = "*"
"""The row of the common limits; no owner can have this name."""

_QUEUED_JOBS = 1000  # the default: enough for people, and it stops a loop that submits jobs


@dataclass(frozen=True)
class Limits:
    """Limits of one owner. None is no limit, and in an owner's own row the limit of EVERYBODY."""

    running_jobs: int | None = None
    queued_jobs: int | None = None
    bytes: int | None = None


class OwnerLimits(NamedTuple):
    own: Limits
    """What was set for this owner."""
    effective: Limits
    """With those of EVERYBODY and the defaults in place of what was not."""


class OwnerUsage(NamedTuple):
    running_jobs: int
    queued_jobs: int
    bytes: int


def get_limits(session: Session, owner: str) -> Limits:
    """The limits that apply to an owner."""
    return list_limits(session, [owner])[owner].effective


def list_limits(session: Session, owners: Sequence[str]) -> dict[str, OwnerLimits]:
    rows = {row.owner: row for row in session.scalars(select(Quota).where(Quota.owner.in_([*owners, EVERYBODY])))}
    return {owner: _limits_of(rows.get(owner), rows.get(EVERYBODY)) for owner in owners}


def _limits_of(own: Quota | None, everybodys: Quota | None) -> OwnerLimits:
    limits = [row for row in (own, everybodys) if row is not None]

    def first(name: str) -> int | None:
        return next((limit for row in limits if (limit := getattr(row, name)) is not None), None)

    queued = first("queued_jobs")
    effective = Limits(first("running_jobs"), _QUEUED_JOBS if queued is None else queued, first("bytes"))
    return OwnerLimits(Limits(own.running_jobs, own.queued_jobs, own.bytes) if own else Limits(), effective)


def list_owners(session: Session, limit: int, after: str | None) -> list[str]:
    """One page of the owners of jobs, datasets, keys or limits, by name; `after` is the last one of the page before."""
    return list(session.scalars(_OWNERS, {"after": after or "", "limit": limit}))


def _owners() -> TextClause:
    """Each owner by the next name in an index, however many jobs it has."""

    def following(name: str) -> str:
        tables = ("jobs", "datasets", "keys", "quotas")
        return ", ".join(
            f"(SELECT min(owner) FROM {each} WHERE owner > {name} AND owner <> '{EVERYBODY}')" for each in tables
        )

    return text(
        f"""
        WITH RECURSIVE owners (owner, place) AS (
            SELECT least({following("CAST(:after AS text)")}), 1
            UNION ALL
            SELECT least({following("owners.owner")}), place + 1 FROM owners WHERE owner IS NOT NULL AND place < :limit
        )
        SELECT owner FROM owners WHERE owner IS NOT NULL ORDER BY place
        """
    )


_OWNERS = _owners()


def running_limit(owner: ColumnElement[str]) -> ColumnElement[int]:
    """How many jobs the owner may run at once, for a query; NULL is no limit."""
    return func.coalesce(*_limits(Quota.running_jobs, owner))


def _limits(limit: InstrumentedAttribute[int | None], owner: ColumnElement[str]) -> list[ScalarSelect[int | None]]:
    """That of the owner, and that of EVERYBODY."""
    return [select(limit).where(Quota.owner == each).scalar_subquery() for each in (owner, EVERYBODY)]


def set_limits(session: Session, owner: str, limits: Limits) -> None:
    row = {"running_jobs": limits.running_jobs, "queued_jobs": limits.queued_jobs, "bytes": limits.bytes}
    session.execute(insert(Quota).values(owner=owner, **row).on_conflict_do_update(index_elements=["owner"], set_=row))


def list_usage(session: Session, owners: Sequence[str]) -> dict[str, OwnerUsage]:
    query = select(Job.owner, Job.status, func.count()).where(
        Job.owner.in_(owners), Job.status.in_([JobStatus.RUNNING, JobStatus.QUEUED])
    )
    jobs = {(owner, status): count for owner, status, count in session.execute(query.group_by(Job.owner, Job.status))}
    kept = _list_bytes(session, owners)
    return {
        owner: OwnerUsage(jobs.get((owner, JobStatus.RUNNING), 0), jobs.get((owner, JobStatus.QUEUED), 0), kept[owner])
        for owner in owners
    }


def count_bytes(session: Session | Connection, owner: str) -> int:
    return _list_bytes(session, [owner])[owner]


def _list_bytes(session: Session | Connection, owners: Sequence[str]) -> dict[str, int]:
    """The bytes of each owner's stored datasets, equal contents counted once, of what its jobs have left to download,
    and of their run folders as they were last measured."""
    its_datasets = (Dataset.owner.in_(owners), Dataset.sha256.is_not(None))
    shas = select(Dataset.owner, Dataset.sha256).where(*its_datasets).distinct().subquery()
    unmeasured = Job.measured_attempt < Job.attempt
    of_jobs = func.sum(Job.run_bytes + case((~unmeasured, Job.artifact_bytes), else_=0))
    its = Job.owner.in_(owners)
    parts = (
        select(shas.c.owner, func.sum(Blob.bytes)).join(Blob, Blob.sha256 == shas.c.sha256).group_by(shas.c.owner),
        select(Job.owner, of_jobs).where(its).group_by(Job.owner),
        select(Job.owner, func.sum(Artifact.bytes)).join(Artifact).where(its, unmeasured).group_by(Job.owner),
    )
    counts = dict.fromkeys(owners, 0)
    for part in parts:
        for owner, count in session.execute(part):
            counts[owner] += int(count or 0)
    return counts


def check_queue(session: Session, owner: str, more: int = 1) -> None:
    """Checks that the owner may queue `more` jobs, and has room for what they leave. Raises QuotaExceeded. Concurrent
    requests are counted one by one."""
    connection = session.connection()
    count_one_by_one(connection, f"queue of {owner}")
    refuse_full_queue(connection, owner, more)


def refuse_full_queue(connection: Connection, owner: str, more: int = 1) -> None:
    """Raises QuotaExceeded. A look that holds nobody up: concurrent requests may pass it together."""
    limit, count, most_bytes = connection.execute(_QUEUE, {"its_owner": owner}).one()
    if count + more > limit:
        them = "" if more == 1 else f", which leaves no room for {more} more"
        raise QuotaExceeded(
            f"{owner} has {count} jobs that wait, and may have {limit}{them}; submit more when some of them have "
            "started"
        )
    _check_bytes(connection, owner, 1, most_bytes)


def _queue() -> Select[int, int, int | None]:
    """How many jobs an owner may queue, how many it has queued, and how many bytes it may keep."""
    its_owner = bindparam("its_owner", type_=Text)
    queued = select(func.count()).where(Job.owner == its_owner, Job.status == JobStatus.QUEUED)
    most_queued = func.coalesce(*_limits(Quota.queued_jobs, its_owner), _QUEUED_JOBS)
    return select(most_queued, queued.scalar_subquery(), func.coalesce(*_limits(Quota.bytes, its_owner)))


_QUEUE = _queue()


def check_evaluations(session: Session, owner: str) -> None:
    """Checks that the owner may have another evaluation that is not done, as many as jobs that wait, and has room for
    its rows. Raises QuotaExceeded. Concurrent requests are counted one by one."""
    count_one_by_one(session, f"queue of {owner}")
    limits = get_limits(session, owner)
    open_ones = (Job.owner == owner, JobEvaluation.status.in_(["queued", "running"]))
    count = session.scalar(select(func.count()).select_from(JobEvaluation).join(Job).where(*open_ones)) or 0
    if limits.queued_jobs is not None and count >= limits.queued_jobs:
        raise QuotaExceeded(
            f"{owner} has {count} evaluations that are not done, and may have {limits.queued_jobs}, as many as jobs "
            "that wait; request more when some of them are done, or delete some"
        )
    _check_bytes(session, owner, 1, limits.bytes)


def check_bytes(session: Session, owner: str, more: int) -> None:
    """Checks that the owner may store `more` bytes. Raises QuotaExceeded. Concurrent requests are counted one by
    one."""
    _check_bytes(session, owner, more, get_limits(session, owner).bytes)


def _check_bytes(session: Session | Connection, owner: str, more: int, limit: int | None) -> None:
    if limit is None:
        return
    count_one_by_one(session, f"bytes of {owner}")
    total = count_bytes(session, owner) + more
    if total > limit:
        raise QuotaExceeded(
            f"{owner} would keep {total} bytes of datasets, artifacts and run folders, and may keep {limit}; delete "
            "datasets or jobs first"
        )


def count_one_by_one(session: Session | Connection, what: str) -> None:
    """Holds an advisory lock until the transaction ends, so that two requests never count at once."""
    session.execute(_LOCK, {"what": what})


_LOCK = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("what"), 0)))
