"""What the rows of jobs, leases and events promise at all times."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from contract.status import TRANSITIONS, JobStatus
from store.models import Event, Job, Lease


class Process(NamedTuple):
    """Of a worker's pool. It has begun a part of an attempt."""

    job_id: str
    attempt: int
    worker: str
    rank: int

    @property
    def part(self) -> tuple[str, int, str]:
        return self.job_id, self.attempt, self.worker


class Rows(NamedTuple):
    jobs: dict[str, Job]
    leases: list[Lease]
    events: list[Event]


def read_rows(session: Session) -> Rows:
    return Rows(
        {job.id: job for job in session.scalars(sa.select(Job))},
        list(session.scalars(sa.select(Lease).order_by(Lease.job_id, Lease.worker, Lease.number))),
        list(session.scalars(sa.select(Event).order_by(Event.job_id, Event.seq))),
    )


def check_moves(rows: Rows, submitted: Collection[str]) -> None:
    """Every job has come to where it is by legal moves, each told in one event."""
    found, _, reported = rows
    assert found.keys() == {*submitted}
    for job_id, job in found.items():
        events = [each for each in reported if each.job_id == job_id]
        assert [each.seq for each in events] == list(range(1, job.event_count + 1))
        moves = [each.data for each in events if each.type == "status"]
        assert moves[0]["status"] == JobStatus.QUEUED
        assert all(after["status"] in TRANSITIONS[before["status"]] for before, after in pairwise(moves))
        assert (moves[-1]["status"], moves[-1]["attempt"]) == (job.status, job.attempt)
        begun = [move["attempt"] for move in moves if move["status"] == JobStatus.RUNNING]
        assert begun == list(range(1, job.attempt + 1))


def check_claims(rows: Rows, claims: Counter[tuple[str, int]]) -> None:
    """No attempt is claimed twice."""
    found, _, _ = rows
    assert claims == Counter((job.id, number + 1) for job in found.values() for number in range(job.attempt))


def check_devices(rows: Rows) -> None:
    """No device has two jobs that do not share it."""
    users: dict[tuple[str, int], list[Lease]] = defaultdict(list)
    for lease in rows.leases:
        users[lease.worker, lease.number].append(lease)
    assert all(len(those) == 1 or (len(those) == 2 and all(each.shared for each in those)) for those in users.values())


def check_leases(rows: Rows, processes: Mapping[Process, list[int]]) -> None:
    """A lease is of a process, or of one that is to begin. A dead one has its devices until they are freed."""
    found, given, _ = rows
    parts: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for lease in given:
        job, part = found[lease.job_id], (lease.job_id, lease.attempt, lease.worker)
        if lease.begun_at is not None:
            parts[part].append(lease.number)
        elif job.status is JobStatus.RUNNING:
            assert lease.attempt == job.attempt
            assert lease.rank > 0
        else:
            assert (job.status, job.attempt) == (JobStatus.QUEUED, lease.attempt - 1)
    held = {each.part: devices for each, devices in processes.items() if devices}
    assert {part: sorted(numbers) for part, numbers in parts.items()} == held


def check_parts(rows: Rows, parted: Collection[tuple[str, int]]) -> None:
    """An attempt has all its parts until one of them ends. `parted` are attempts that may have lost one."""
    found, given, _ = rows
    for job in found.values():
        if job.status is JobStatus.RUNNING and (job.id, job.attempt) not in parted:
            machines = {lease.worker for lease in given if (lease.job_id, lease.attempt) == (job.id, job.attempt)}
            assert len(machines) == job.recipe["resources"]["nodes"]
            assert job.worker in machines
