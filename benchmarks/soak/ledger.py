"""What became of each job of a soak, read from the database and the machine when all is over."""

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.soak.chaos import Strike
from benchmarks.soak.orders import Order
from contract.failure import FailureCode
from contract.recipe import Batch
from contract.status import JobStatus
from store.models import Event, Job, StepMetric
from tests.support.fake_trainer import losses

END_THE_GUARD = {"a guard", "all processes of a worker"}
"""After which there is nobody to write an exit report. What ends its reader alone leaves it to the next one."""


@dataclass
class Ledger:
    submitted: int
    ends: Counter[str] = field(default_factory=Counter)
    too_late: int = 0
    """Were to be cancelled, and had ended by then."""
    lost: list[str] = field(default_factory=list)
    """Came to no end, or another than they should."""
    twice: list[str] = field(default_factory=list)
    """Succeeded more than once, were begun twice in one attempt, or have steps that are not those of one run."""
    set_back: list[str] = field(default_factory=list)
    """Began again further back than a state that had been saved: the steps are those of one run, and made in vain."""
    orphans: list[str] = field(default_factory=list)
    """Processes and leases that were left."""
    without_exit_report: list[str] = field(default_factory=list)
    """Cancelled while they ran, and no end of their processes was recorded."""
    deserters: list[str] = field(default_factory=list)
    """Workers and APIs that have ended, and nobody had stopped or killed them."""
    attempts: list[int] = field(default_factory=list)
    went_on: int = 0
    """Attempts that began from a state of an earlier one."""
    retries: int = 0
    preempted: int = 0
    paused: int = 0
    full_disks: int = 0
    torn_states: int = 0
    cut_lines: int = 0
    strikes: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        return self.submitted == self.ends.total() and not any(getattr(self, name) for name in _OFF)

    def __str__(self) -> str:
        ends = [(f"{end} as ordered" if end != "succeeded" else end, self.ends[end]) for end in _ENDS]
        off = [(name, len(getattr(self, name))) for name in _OFF]
        rows = [("submitted", self.submitted), *ends, *((name.replace("_", " "), count) for name, count in off)]
        lines = [f"{name:<22}{count:>6}" for name, count in rows]
        lines += [f"    {problem}" for name, _ in off for problem in getattr(self, name)]
        lines += ["", *(f"{what:<36}{count:>4}" for what, count in self.strikes.most_common())]
        mean, most = statistics.mean(self.attempts or [0]), max(self.attempts, default=0)
        several = sum(count > 1 for count in self.attempts)
        return "\n".join(
            [
                *lines,
                f"{'all of these':<36}{self.strikes.total():>4}",
                "",
                f"{self.preempted} jobs were preempted, {self.paused} were paused and resumed, "
                f"{self.too_late} had ended before they were cancelled; {self.unanswered} requests found nobody",
                f"{self.full_disks} attempts met a full disk, {self.cut_lines} died in the middle of a line of events, "
                f"{self.torn_states} states were found torn",
                f"{mean:.2f} attempts per job, {most} at most; {several} jobs had several; {self.retries} retries; "
                f"{self.went_on} attempts went on from a state",
                f"{self.seconds:.0f} s",
            ]
        )


_DAMAGED = re.compile(r"step-(\d+) is damaged")
_OFF = ["lost", "twice", "set_back", "orphans", "without_exit_report", "deserters"]
_ENDS = [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]


def read_ledger(session: Session, orders: Sequence[Order], strikes: Sequence[Strike], orphans: list[str]) -> Ledger:
    ledger = Ledger(len(orders), orphans=orphans, strikes=Counter(strike.what for strike in strikes))
    known = {order.job_id for order in orders}
    ledger.lost += [
        f"{job_id} is there, and nobody sent it" for job_id in session.scalars(sa.select(Job.id)) if job_id not in known
    ]
    for order in orders:
        job = session.get(Job, order.job_id)
        if job is None:
            ledger.lost.append(f"{order.job_id} ({order.kind}) is not there")
            continue
        _enter(session, ledger, order, job, strikes)
    return ledger


def _enter(session: Session, ledger: Ledger, order: Order, job: Job, strikes: Sequence[Strike]) -> None:
    events = _events_of(session, job.id)
    about = f"{job.id} ({order.kind}, {job.name})"
    ledger.attempts.append(job.attempt)
    ledger.retries += sum(kind == "retry" for kind, _, _ in events)
    ledger.preempted += any("preempted" in data.get("message", "") for kind, _, data in events if kind == "log")
    ledger.paused += any(data.get("status") == JobStatus.PAUSED for _, _, data in events)
    wrong = list(_wrong_end(order, job))
    if wrong:
        ledger.lost += [f"{about}: {each}" for each in wrong]
    else:
        ledger.ends[job.status] += 1
        ledger.too_late += order.cancel is not None and job.status is not JobStatus.CANCELLED
        ledger.twice += [f"{about}: {each}" for each in _wrong_steps(session, order, job)]
    ledger.twice += [f"{about}: {each}" for each in _begun_or_ended_twice(events)]
    ledger.set_back += [f"{about}: {each}" for each in set_back(events)]
    ledger.full_disks += sum(data.get("code") == FailureCode.DISK_FULL for kind, _, data in events if kind == "retry")
    ledger.torn_states += sum(bool(_DAMAGED.search(data["message"])) for kind, _, data in events if kind == "log")
    ledger.went_on += sum(data["resumed_step"] > 0 for kind, _, data in events if kind == "started")
    if job.status is JobStatus.CANCELLED and job.exit_report is None and _was_guarded_to_its_end(job, events, strikes):
        ledger.without_exit_report.append(about)


def _events_of(session: Session, job_id: str) -> list[tuple[str, float, dict[str, Any]]]:
    events = sa.select(Event.type, Event.time, Event.data).where(Event.job_id == job_id).order_by(Event.seq)
    return [(kind, time, data) for kind, time, data in session.execute(events)]


def _wrong_end(order: Order, job: Job) -> Iterator[str]:
    expected = {order.end} | ({JobStatus.CANCELLED} if order.cancel and not order.refused else set())
    if job.status not in expected:
        yield f"{job.status}, not {' or '.join(sorted(expected))}: {job.failure}"
    elif job.status is JobStatus.FAILED and (job.failure or {}).get("code") != order.failure:
        yield f"failed for another reason: {job.failure}"
    elif job.status is JobStatus.SUCCEEDED and order.micro_batch is not None:
        batch = Batch.model_validate(job.batch) if job.batch else None
        if batch is None or batch.micro_batch_size != order.micro_batch:
            yield f"succeeded with batch {job.batch}"


def _begun_or_ended_twice(events: Collection[tuple[str, float, dict[str, Any]]]) -> Iterator[str]:
    statuses = [data for kind, _, data in events if kind == "status"]
    succeeded = sum(data["status"] == JobStatus.SUCCEEDED for data in statuses)
    if succeeded > 1:
        yield f"succeeded {succeeded} times"
    begun = Counter(data["attempt"] for data in statuses if data["status"] == JobStatus.RUNNING)
    yield from (f"attempt {attempt} was begun {count} times" for attempt, count in begun.items() if count > 1)


def set_back(events: Collection[tuple[str, float, dict[str, Any]]]) -> Iterator[str]:
    """The fake trainer reports an adapter once the state beside it is complete. Either may exist unreported: the
    worker that would have recorded it was killed."""
    saved = {0}
    for kind, _, data in events:
        if kind == "checkpoint" and not data["final"]:
            saved.add(data["step"])
        elif kind == "log" and (damaged := _DAMAGED.search(data["message"])):
            saved.discard(int(damaged[1]))
        elif kind == "started" and data["resumed_step"] < max(saved):
            yield f"began after step {data['resumed_step']}, when step {max(saved)} had been saved"


def _wrong_steps(session: Session, order: Order, job: Job) -> Iterator[str]:
    """The store has the steps of one run that nobody disturbed, from the first on, in the order in which they were
    made; all of them where it was not cancelled."""
    metrics = (
        sa.select(StepMetric.step, StepMetric.loss, StepMetric.time)
        .where(StepMetric.job_id == job.id)
        .order_by(StepMetric.step)
    )
    rows = session.execute(metrics).all()
    steps = [row.step for row in rows]
    last = len(steps) if job.status is JobStatus.CANCELLED else order.steps
    if steps != list(range(1, last + 1)):
        yield f"has the steps {steps} of {order.steps}"
    if [row.loss for row in rows] != losses(len(steps)):
        yield f"has the losses {[row.loss for row in rows]}"
    if any(after.time < before.time for before, after in itertools.pairwise(rows)):
        yield f"has steps recorded in another order: {[(row.step, round(row.time, 2)) for row in rows]}"


def _was_guarded_to_its_end(
    job: Job, events: Sequence[tuple[str, float, dict[str, Any]]], strikes: Sequence[Strike]
) -> bool:
    """It ran when it was cancelled, under a guard, which nothing had ended."""
    if job.recipe["resources"].get("profile"):
        return False  # Slurm has no exit report
    (*_, (_, began, before), _) = [each for each in events if each[0] == "status"]
    return before["status"] == JobStatus.RUNNING and not any(
        strike.what in END_THE_GUARD
        and strike.time > began - 1
        and (strike.job_id == job.id if strike.job_id else strike.worker == before["worker"])
        for strike in strikes
    )
