"""Memory in use on the workers' machines: a reading every half minute, kept for a day."""

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, insert, text
from sqlalchemy.orm import Session

from store.models import MemoryReading
from store.scheduling import workers

KEPT = timedelta(days=1)
MACHINE = -1
"""Stands for a device: the memory of the machine itself, in which its CPU slots train."""


class Reading(NamedTuple):
    device: int
    time: float
    """Seconds since the epoch."""
    used_bytes: int


class Holding(NamedTuple):
    """Jobs that held a device without a change, from the first reading to the last."""

    device: int
    start: float
    end: float
    jobs: list[str]


def record(session: Session, worker: str, used: Mapping[int, int]) -> None:
    """Adds readings of a worker, by device, with who holds each, and deletes its old ones."""
    held: dict[int, set[str]] = {}
    for lease in workers.list_leases(session):
        if lease.worker == worker:
            for device in (lease.number, MACHINE):
                held.setdefault(device, set()).add(lease.job_id)
    rows = [
        {"worker": worker, "device": device, "used_bytes": count, "jobs": sorted(held.get(device, ()))}
        for device, count in used.items()
    ]
    if rows:
        session.execute(insert(MemoryReading), rows)
    session.execute(delete(MemoryReading).where(MemoryReading.worker == worker, MemoryReading.at < func.now() - KEPT))


def prune(session: Session) -> None:
    """Deletes the old readings of all workers: those that are gone for good delete none of their own."""
    session.execute(delete(MemoryReading).where(MemoryReading.at < func.now() - KEPT))


def read(session: Session, worker: str, after: float, points: int) -> list[Reading]:
    """The readings of a worker after a time, by device and time. Each device's are thinned: the time is divided into
    half as many groups as `points`, of each of which the least and the largest stay, besides the first and the last of
    all."""
    values = {"worker": worker, "after": after, "groups": max(1, points // 2)}
    return [Reading(*row) for row in session.execute(_READINGS, values)]


def holdings(session: Session, worker: str, after: float) -> list[Holding]:
    """Who held the devices of a worker after a time, by device and time."""
    return [Holding(*row) for row in session.execute(_HOLDINGS, {"worker": worker, "after": after})]


_ITS = "worker = :worker AND at > to_timestamp(:after)"
_READINGS = text(
    f"""
    WITH its AS (
        SELECT device, at, used_bytes, least(
            floor(extract(epoch FROM at - min(at) OVER mine) * :groups
                / nullif(extract(epoch FROM max(at) OVER mine - min(at) OVER mine), 0)),
            :groups - 1
        ) AS part
        FROM memory_readings WHERE {_ITS}
        WINDOW mine AS (PARTITION BY device)
    ), placed AS (
        SELECT *,
            row_number() OVER (PARTITION BY device, part ORDER BY used_bytes, at) AS up,
            row_number() OVER (PARTITION BY device, part ORDER BY used_bytes DESC, at) AS down,
            at IN (min(at) OVER (PARTITION BY device), max(at) OVER (PARTITION BY device)) AS at_an_end
        FROM its
    )
    SELECT device, extract(epoch FROM at)::float, used_bytes FROM placed
    WHERE up = 1 OR down = 1 OR at_an_end ORDER BY device, at
    """
)
_HOLDINGS = text(
    f"""
    WITH changes AS (
        SELECT device, at, jobs, jobs IS DISTINCT FROM lag(jobs) OVER (PARTITION BY device ORDER BY at) AS changed
        FROM memory_readings WHERE {_ITS}
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE changed) OVER (PARTITION BY device ORDER BY at) AS place FROM changes
    )
    SELECT device, extract(epoch FROM min(at))::float, extract(epoch FROM max(at))::float, jobs FROM numbered
    WHERE jobs <> '{{}}' GROUP BY device, place, jobs ORDER BY device, place
    """
)
