"""Whatever happens to jobs and workers, in any order and several things at once: none is lost, none runs twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode
from contract.recipe import Batch, Recipe
from contract.status import TERMINAL, JobStatus, RequestedAction
from store.errors import IllegalMove, StaleAttempt
from store.jobs import actions, attempts, jobs, progress, transitions
from store.jobs.attempts import AttemptEnd, Retries
from store.models import Base, Job, Lease, Worker
from store.scheduling import leases, scheduler, workers
from store.session import make_sessions
from tests.store.jobs.invariants import (
    Process,
    Rows,
    check_claims,
    check_devices,
    check_leases,
    check_moves,
    check_parts,
    read_rows,
)
from tests.support.database import empty_database
from tests.support.events import metric
from tests.support.jobs import LEASE, cpu

RETRIES = Retries(most=2, first_wait=timedelta(seconds=20), longest_wait=timedelta(seconds=60))
GRACE = timedelta(seconds=30)
MOST_JOBS = 10
SLOTS = 3
AT_REST = TERMINAL | {JobStatus.PAUSED}


def failed(reason: FailureCode, smaller: Batch | None = None) -> AttemptEnd:
    return AttemptEnd(JobStatus.FAILED, Failure(code=reason, message="it went wrong"), smaller)


ENDS = {
    "succeeded": AttemptEnd(JobStatus.SUCCEEDED),
    "given back": AttemptEnd(JobStatus.QUEUED),
    "the user's fault": failed(FailureCode.LOSS_NOT_FINITE),
    "killed": failed(FailureCode.TRAINER_KILLED),
    "too large": failed(FailureCode.OUT_OF_MEMORY, Batch(micro_batch_size=4, effective_batch_size=16)),
}
AS_REQUESTED = {
    RequestedAction.CANCEL: AttemptEnd(JobStatus.CANCELLED),
    RequestedAction.FORCE_CANCEL: AttemptEnd(JobStatus.CANCELLED),
    RequestedAction.PAUSE: AttemptEnd(JobStatus.PAUSED),
    RequestedAction.PREEMPT: AttemptEnd(JobStatus.QUEUED),
    None: AttemptEnd(JobStatus.SUCCEEDED),
}
REQUESTS: dict[str, Callable[[Session, str], Job]] = {
    "cancel": actions.cancel,
    "force_cancel": partial(actions.cancel, force=True),
    "pause": actions.pause,
    "resume": actions.resume,
    "retry": actions.retry,
}


def at_most_one_restart(things: list[tuple[Any, ...]]) -> bool:
    return sum(name == "restart" for name, *_ in things) <= 1


WORKERS = st.sampled_from("abc")
WHICH = st.integers(0, MOST_JOBS - 1)
"""Of the jobs, messages or processes that there are then: what is drawn must not depend on who wins a race."""
ENDINGS = st.sampled_from(["as requested", *ENDS])
HAPPENINGS = st.one_of(
    st.tuples(st.just("schedule")),
    st.tuples(st.just("begin"), WHICH),
    st.tuples(st.just("tell"), WHICH),
    st.tuples(st.just("finish"), WHICH, ENDINGS),
    st.tuples(st.just("end_agent"), WHICH),
    st.tuples(st.just("die"), WHICH),
    st.tuples(st.just("clear"), WORKERS),
    st.tuples(st.just("take_over")),
    st.tuples(st.just("take_back"), WHICH),
    st.tuples(st.just("ask"), st.sampled_from([*REQUESTS]), WHICH),
    st.tuples(st.just("beat"), WORKERS, st.booleans()),
    st.tuples(st.just("restart"), WORKERS, st.integers(1, SLOTS)),
)


class Service(RuleBasedStateMachine):
    """The store, and what is known of the processes that the rows speak of."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        empty_database(engine)
        self.engine = engine
        self.sessions = make_sessions(engine)
        self.pool = ThreadPoolExecutor(8)
        self.numbers = count(1)
        self.submitted: list[str] = []
        self.slots: dict[str, int] = {}
        self.messages: list[tuple[str, int, str]] = []
        """(job, attempt, worker): begin this. Any of them may come late, again or never."""
        self.followed: dict[Process, list[int]] = {}
        """Process -> its devices."""
        self.left: dict[Process, list[int]] = {}
        """What is left of those that have died."""
        self.claims = Counter[tuple[str, int]]()
        self.parted: set[tuple[str, int]] = set()
        """Attempts that may have lost a part of several."""

    # What happens

    @initialize()
    def two_workers_are_there(self) -> None:
        self.restart("a", 2)
        self.restart("b", 2)

    @rule(
        owner=st.sampled_from(["ann", "bob"]),
        priority=st.integers(0, 2),
        gpus=st.sampled_from([1, 1, 2]),
        nodes=st.sampled_from([1, 1, 2]),
        share=st.booleans(),
        preemptible=st.booleans(),
        seconds=st.none() | st.just(5.0),
    )
    def submit(
        self, owner: str, priority: int, gpus: int, nodes: int, share: bool, preemptible: bool, seconds: float | None
    ) -> None:
        if len(self.submitted) < MOST_JOBS:
            resources = {"gpus": gpus, "nodes": nodes, "allow_sharing": share}
            scheduling = {"priority": priority, "preemptible": preemptible}
            recipe = {"model": "m", "dataset": "d", "resources": resources, "scheduling": scheduling}
            with self.sessions.begin() as session:
                job = jobs.create(session, Recipe.model_validate(recipe), owner, expected_seconds=seconds)
            self.submitted.append(job.id)

    @rule(things=st.lists(HAPPENINGS, min_size=1, max_size=6).filter(at_most_one_restart))
    def happen_at_once(self, things: list[tuple[Any, ...]]) -> None:
        self.at_once([partial(getattr(self, name), *arguments) for name, *arguments in things])
        for name, slots in self.slots.items():
            self.lose_devices(name, slots)
        if any(name in ("restart", "take_back") for name, *_ in things):
            self.part_all()

    @rule(passes=st.integers(1, 3), claimers=st.integers(1, 3), lost=st.sampled_from([None, None, 0, 1]))
    def start_what_can(self, passes: int, claimers: int, lost: int | None = None) -> None:
        """All but one of the messages arrive."""
        self.at_once([self.schedule] * passes)
        with self.sessions.begin() as session:
            unbegun = [(*each, name) for name in sorted(self.slots) for each in leases.not_started(session, name)]
        for number, part in enumerate(sorted(unbegun, key=lambda part: (self.submitted.index(part[0]), part))):
            if number != lost:
                self.at_once([partial(self.begin_part, part)] * claimers)

    @rule(which=st.lists(WHICH, min_size=1, max_size=3), how=ENDINGS)
    def some_end(self, which: list[int], how: str) -> None:
        for number in which:
            self.finish(number, how)
            self.end_agent(number)

    @rule(seconds=st.sampled_from([1, 6, 11, 31, 65, 3601]), silent=st.sampled_from(["", "a", "b", "c", "ac", "bc"]))
    def time_passes(self, seconds: int, silent: Collection[str]) -> None:
        """In which some workers are not heard of."""
        with self.engine.begin() as connection:
            for column in (Lease.placed_at, Job.lease_expires_at, Job.not_before):
                connection.execute(sa.update(column.class_).values({column: column - timedelta(seconds=seconds)}))
            earlier = {Worker.seen_at: Worker.seen_at - timedelta(seconds=seconds)}
            connection.execute(sa.update(Worker).where(Worker.name.in_([*silent])).values(earlier))
        for name in sorted(self.slots.keys() - {*silent}):
            self.beat(name, draining=False)
        with self.sessions.begin() as session:
            known = {worker.name for worker, _ in workers.list_workers(session)}
        for name in self.slots.keys() - known:
            self.lose_devices(name, 0)
        self.part_all()  # what has not begun is taken back
        for process in self.heads():
            if process.worker not in silent:
                self.tell_as(process)

    @rule(worker=WORKERS, slots=st.integers(1, SLOTS))
    def a_worker_restarts(self, worker: str, slots: int) -> None:
        self.happen_at_once([("restart", worker, slots)])
        self.happen_at_once([("clear", worker)])

    @rule(which=WHICH)
    def nothing_is_written_by_what_is_over(self, which: int) -> None:
        over = sorted(self.claims)
        if not over:
            return
        job_id, attempt = over[which % len(over)]
        with self.sessions.begin() as session:
            job = jobs.get(session, job_id)
        attempt += job.status is JobStatus.RUNNING and job.attempt == attempt
        before = self.tables()
        for write in (
            lambda session: progress.record(session, job_id, attempt, [metric(900, time.time())], LEASE),
            lambda session: progress.catch_up(session, job_id, attempt, attempt, [metric(900, time.time())], LEASE),
            lambda session: jobs.renew(session, job_id, attempt, LEASE),
            lambda session: jobs.launch(session, job_id, attempt, "torchrun", LEASE),
            lambda session: jobs.signal_peers_done(session, job_id, attempt, LEASE),
            lambda session: attempts.finish(session, job_id, attempt, ENDS["succeeded"], RETRIES),
        ):
            with pytest.raises(StaleAttempt), self.sessions.begin() as session:
                write(session)
        assert self.tables() == before

    def at_once(self, things: list[Callable[[], None]]) -> None:
        together = threading.Barrier(len(things))

        def begin(thing: Callable[[], None]) -> None:
            together.wait()
            thing()

        for done in [self.pool.submit(begin, thing) for thing in things]:
            done.result()

    def schedule(self) -> None:
        with self.sessions.begin() as session:
            placed = scheduler.schedule(session)
        self.messages += [(each.job_id, each.attempt, worker) for each in placed for worker in each.workers]

    def begin(self, which: int) -> None:
        if self.messages:
            self.begin_part(self.messages[-1 - which % len(self.messages)])

    def begin_part(self, part: tuple[str, int, str]) -> None:
        with self.sessions.begin() as session:
            begun = transitions.begin(session, *part, next(self.numbers), LEASE)
        if begun is not None:
            self.followed[Process(*part, begun.rank)] = begun.devices
            self.claims[part[:2]] += begun.rank == 0

    def tell(self, which: int) -> None:
        for process in self.one_of(self.heads(), which):
            self.tell_as(process)

    def tell_as(self, process: Process) -> None:
        """Renews the lease. Every second attempt comes further than the one before."""
        with self.fenced(process), self.sessions.begin() as session:
            step = process.attempt // 2 + 1
            progress.record(session, process.job_id, process.attempt, [metric(step, time.time())], LEASE)

    def finish(self, which: int, how: str) -> None:
        for process in self.one_of(self.heads(), which):
            with self.fenced(process):
                with self.sessions.begin() as session:
                    requested_action = jobs.lock_running(session, *process.part[:2]).requested_action
                with self.sessions.begin() as session:
                    end = AS_REQUESTED[requested_action] if how == "as requested" else ENDS[how]
                    attempts.finish(session, *process.part[:2], end, RETRIES)
            self.gone(process)

    def end_agent(self, which: int) -> None:
        for process in self.one_of(self.agents(), which):
            self.free(process)

    def die(self, which: int) -> None:
        """The pool's process; its trainer lives on."""
        for process in self.one_of(self.followed, which):
            self.left[process] = self.followed.pop(process, [])

    def clear(self, worker: str) -> None:
        """The worker's reconciler has ended what was left."""
        left = [each for each in [*self.left] if each.worker == worker]
        with self.sessions.begin() as session:
            begun = {(lease.job_id, lease.attempt) for lease in leases.list_started(session, worker)}
        for process in left:
            if process.part[:2] in begun:
                with self.sessions.begin() as session:
                    if process.rank == 0:
                        attempts.fail_lost(session, *process.part[:2], RETRIES)
                    leases.free(session, *process.part)
            self.gone(process)

    def take_over(self) -> None:
        with self.sessions.begin() as session:
            attempts.fail_expired(session, GRACE, RETRIES)

    def take_back(self, which: int) -> None:
        """By a worker that drains."""
        for job_id in self.submitted[which : which + 1]:
            with self.sessions.begin() as session:
                leases.revoke(session, job_id)

    def ask(self, what: str, which: int) -> None:
        for job_id in self.submitted[which : which + 1]:
            with suppress(IllegalMove), self.sessions.begin() as session:
                REQUESTS[what](session, job_id)

    def beat(self, worker: str, draining: bool) -> None:
        if worker in self.slots:
            with self.sessions.begin() as session:
                known = workers.heartbeat(session, worker, worker, {}, draining)
            if not known:
                self.register(worker)
                self.beat(worker, draining)

    def restart(self, worker: str, slots: int) -> None:
        """All its processes die; what they have started is left."""
        for process in [each for each in [*self.followed] if each.worker == worker]:
            self.left[process] = self.followed.pop(process, [])
        self.slots[worker] = slots
        self.register(worker)

    def register(self, worker: str) -> None:
        with self.sessions.begin() as session:
            workers.register(session, worker, worker, "localhost", cpu(self.slots[worker]))

    def lose_devices(self, worker: str, left: int) -> None:
        """Those from number `left` on are off the table."""
        for processes in (self.followed, self.left):
            for process, devices in processes.items():
                if process.worker == worker and any(number >= left for number in devices):
                    processes[process] = [number for number in devices if number < left]
                    self.parted.add(process.part[:2])

    def part_all(self) -> None:
        self.parted |= {part[:2] for part in self.messages}

    def heads(self) -> list[Process]:
        return [each for each in [*self.followed] if each.rank == 0]

    def agents(self) -> list[Process]:
        return [each for each in [*self.followed] if each.rank > 0]

    def one_of(self, processes: Iterable[Process], which: int) -> list[Process]:
        ordered = sorted(processes, key=lambda each: (self.submitted.index(each.job_id), each))
        return [ordered[which % len(ordered)]] if ordered else []

    @contextmanager
    def fenced(self, process: Process) -> Iterator[None]:
        """A process that may write nothing more ends, and frees its devices."""
        try:
            yield
        except StaleAttempt:
            self.free(process)

    def free(self, process: Process) -> None:
        with self.sessions.begin() as session:
            leases.free(session, *process.part)
        self.gone(process)

    def gone(self, process: Process) -> None:
        self.parted.add(process.part[:2])
        for processes in (self.followed, self.left):
            processes.pop(process, None)

    # What holds at all times

    @invariant()
    def it_holds(self) -> None:
        rows = self.rows()
        check_moves(rows, self.submitted)
        check_claims(rows, self.claims)
        check_devices(rows)
        check_leases(rows, self.followed | self.left)
        check_parts(rows, self.parted)

    def tables(self) -> list[Sequence[sa.Row[Any]]]:
        with self.engine.begin() as connection:
            return [
                connection.execute(sa.select(table).order_by(*table.primary_key)).all()
                for table in Base.metadata.sorted_tables
            ]

    def rows(self) -> Rows:
        with self.sessions.begin() as session:
            return read_rows(session)

    # What comes of it

    def teardown(self) -> None:
        """Two new workers do all that is left; the others have fallen silent for good, or are there again."""
        others = sorted(self.slots)
        silent = others if len(self.submitted) % 2 else ""
        for name in () if silent else others:
            self.a_worker_restarts(name, self.slots[name])
        for _ in range(MOST_JOBS + 2):
            if all(job.status in AT_REST for job in self.rows().jobs.values()):
                break
            for name in "xy":
                self.restart(name, SLOTS)
                self.clear(name)
            self.time_passes(100, silent)
            self.take_over()
            self.start_what_can(passes=1, claimers=1)
            for process in self.heads():
                self.tell_as(process)
            while self.heads():
                self.finish(0, "as requested")
            for process in self.agents():
                self.free(process)
        for name in others:
            self.a_worker_restarts(name, SLOTS)
        self.pool.shutdown()
        found, given, _ = self.rows()
        assert all(job.status in AT_REST for job in found.values())
        assert given == []


@pytest.mark.parametrize("runs", [8, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_no_job_is_lost_or_run_twice(runs: int, engine: sa.Engine) -> None:
    # A race that was lost once may be won in every rerun: it is reported as it was found.
    gently = settings(
        max_examples=runs,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(partial(Service, engine), settings=gently)  # type: ignore[arg-type]  # called, no more
