"""How many claims a second the database bears: `python -m benchmarks.claims` prints it.

- 10,000 jobs of several owners and priorities wait; each of 16 processes stands for a worker with 64 devices. It runs
  the scheduler and begins what was given to its worker, as quickly as it can, until all devices are taken; then these
  are freed, and it begins anew. They are processes, as workers are: threads would wait for each other in Python.
- Likewise, where each has 4 devices and ends what it has begun at once: each end makes room for one.
- One pass of the scheduler with the queue as long and no device free, as each worker makes one every second.

The database is real, on this machine; the broker is not part of it: a claimer reads what it is to begin from the rows,
as a worker does whose message was lost. `--short` is for CI: it exercises everything at a small size.
"""

import argparse
import multiprocessing
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import sqlalchemy as sa

from benchmarks.costs import Costs, show
from benchmarks.servers import running_servers
from contract.machine import Machine
from contract.recipe import Recipe
from contract.status import JobStatus
from store.jobs import attempts, jobs, transitions
from store.jobs.attempts import AttemptEnd, Retries
from store.models import Event, Job, Lease, Worker
from store.scheduling import leases, scheduler, workers
from store.session import Sessions, make_sessions

OWNERS = 5
LEAST = 500
"""Claims a second that are promised."""
FEW_DEVICES = 4
WARM_UP = 3.0

_together: Barrier
"""Of the claimers and of who measures them: each process is given it when it begins."""
LEASE = timedelta(minutes=1)
RETRIES = Retries(most=3, first_wait=timedelta(seconds=10), longest_wait=timedelta(minutes=10))


@dataclass(frozen=True)
class Size:
    jobs: int
    claimers: int
    devices: int
    """Devices of each claimer."""
    rounds: int
    seconds: float
    passes: int


FULL = Size(10_000, 16, 64, 5, 10.0, 50)
SHORT = Size(300, 4, 16, 2, 2.0, 5)


@dataclass
class Work:
    """Of one claimer."""

    claims: int = 0
    passes: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    cpu: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description="Measure claims a second.")
    parser.add_argument("--short", action="store_true", help="few jobs and claimers, for two seconds")
    size = SHORT if parser.parse_args().short else FULL
    with running_servers() as servers:
        engine = sa.create_engine(servers.database_url)
        sessions = make_sessions(engine)
        submit(sessions, size)
        engine.dispose()
        claim(servers.database_url, engine, Costs.of(os.getpid(), servers.folder / "postgres"), size)
        register(sessions, size.claimers, FEW_DEVICES)
        engine.dispose()
        claim_and_end(servers.database_url, engine, size)
        pass_when_all_is_taken(sessions, size)
        engine.dispose()


def submit(sessions: Sessions, size: Size) -> None:
    with sessions.begin() as session:
        for number in range(size.jobs):
            recipe = {"model": "m", "dataset": "d", "scheduling": {"priority": number % 3}}
            jobs.create(session, Recipe.model_validate(recipe), owner=f"owner-{number % OWNERS}")
    register(sessions, size.claimers, size.devices)
    with sessions.begin() as session:
        session.execute(sa.text("ANALYZE"))


def register(sessions: Sessions, count: int, devices: int) -> None:
    machine = Machine(gpus=[], cores=devices, cpu_bf16=False, slots=devices)
    with sessions.begin() as session:
        session.execute(sa.delete(Worker))
        for number in range(count):
            workers.register(session, worker(number), "first", "localhost", machine)


def worker(number: int) -> str:
    return f"worker-{number}"


def claim(database_url: str, engine: sa.Engine, costs: Costs, size: Size) -> None:
    """Measures claims until all devices are taken, in each round anew."""
    took, postgres = [], 0.0
    context = multiprocessing.get_context("fork")
    together = context.Barrier(size.claimers + 1)
    with ProcessPoolExecutor(size.claimers, context, initializer=_share, initargs=(together,)) as pool:
        done = [pool.submit(fill, database_url, worker(number), size) for number in range(size.claimers)]
        for _ in range(size.rounds):
            free_all(engine)
            together.wait()
            began, before = time.perf_counter(), costs.postgres_cpu()
            together.wait()
            took.append(time.perf_counter() - began)
            postgres += costs.postgres_cpu() - before
        found = [each.result() for each in done]
    claims, own = sum(each.claims for each in found), sum(each.cpu for each in found)
    devices = size.claimers * size.devices
    rates = sorted(devices / seconds for seconds in took)
    print(f"{size.claimers} claimers, {size.jobs:,} jobs queued, {devices} devices, {size.rounds} rounds")
    rate, double = claims / sum(took), double_claims(engine)
    print(f"    {rate:.0f} claims/s ({rates[0]:.0f} to {rates[-1]:.0f})")
    print(f"    {double} double claims of {claims}")
    each, cores = (own + postgres) / claims, os.cpu_count() or 1
    print(
        f"    CPU of each: {own / claims * 1e3:.1f} ms of the claimers, {postgres / claims * 1e3:.1f} of PostgreSQL; ",
        end="",
    )
    print(f"{cores} cores with nothing else to do would bear {cores / each:.0f} claims/s")
    print(f"    {'holds' if rate >= LEAST and not double else 'does not hold'}: {LEAST} claims/s, and none twice")


def _share(barrier: Barrier) -> None:
    global _together
    _together = barrier


def fill(database_url: str, name: str, size: Size) -> Work:
    """One worker, until its devices are taken, in every round."""
    sessions = make_sessions(sa.create_engine(database_url))
    mine = Work()
    for number in range(1, size.rounds + 1):
        _together.wait()
        cpu_before = cpu_of_own()
        while mine.claims < number * size.devices:
            one_pass(sessions)
            with sessions.begin() as session:
                given = sorted(leases.not_started(session, name))
            for claimed in given:
                begin(sessions, mine, name, *claimed)
        mine.cpu += cpu_of_own() - cpu_before
        _together.wait()
    return mine


def free_all(engine: sa.Engine) -> None:
    """The jobs that were begun have ended, and as many new ones wait."""
    with engine.begin() as connection:
        connection.execute(sa.delete(Lease))
        connection.execute(sa.update(Job).values(status=JobStatus.QUEUED, lease_expires_at=None))
        connection.execute(sa.update(Worker).values(seen_at=sa.func.now() + timedelta(minutes=10)))


def claim_and_end(database_url: str, engine: sa.Engine, size: Size) -> None:
    free_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(Event))
        connection.execute(sa.update(Job).values(attempt=0))
    begins_at = time.monotonic() + WARM_UP
    # Forked: sixteen imports of the same would take longer than the measurement.
    with ProcessPoolExecutor(size.claimers, multiprocessing.get_context("fork")) as pool:
        done = [pool.submit(work, database_url, worker(number), begins_at, size) for number in range(size.claimers)]
        time.sleep(max(0.0, begins_at - time.monotonic()))
        cpu_before = cpu_of_all()
        found = [each.result() for each in done]
        elapsed, cpu = time.monotonic() - begins_at, cpu_of_all() - cpu_before
    claims = sum(each.claims for each in found)
    ends = sum(len(each.ends) for each in found)
    print(f"{size.claimers} claimers with {FEW_DEVICES} devices each, {size.jobs:,} jobs queued, {elapsed:.1f} s")
    print(f"    {claims / elapsed:.0f} claims/s, each of which also ended: {(claims + ends) / elapsed:.0f} of both/s")
    print(f"    {double_claims(engine)} double claims")
    own = sum(each.cpu for each in found)
    print(f"    {cpu / elapsed:.1f} of {os.cpu_count()} cores busy, {own / elapsed:.1f} with the claimers themselves")
    for what in ("passes", "begins", "ends"):
        times = [seconds for each in found for seconds in getattr(each, what)]
        show(f"{what} ({len(times)})", times)


def work(database_url: str, name: str, begins_at: float, size: Size) -> Work:
    """One worker, as often as it can until the time is over."""
    sessions = make_sessions(sa.create_engine(database_url))
    mine = Work()
    time.sleep(max(0.0, begins_at - time.monotonic()))
    cpu_before = cpu_of_own()
    next_beat = begins_at
    while time.monotonic() < begins_at + size.seconds:
        if time.monotonic() >= next_beat:
            next_beat += 1
            with sessions.begin() as session:
                workers.heartbeat(session, name, "first", {}, draining=False)
        mine.passes.append(timed(lambda: one_pass(sessions)))
        with sessions.begin() as session:
            given = sorted(leases.not_started(session, name))
        for claimed in given:
            mine.begins.append(timed(partial(begin, sessions, mine, name, *claimed)))
        for claimed in given:
            mine.ends.append(timed(partial(end, sessions, *claimed)))
    mine.cpu = cpu_of_own() - cpu_before
    return mine


def one_pass(sessions: Sessions) -> None:
    with sessions.begin() as session:
        scheduler.schedule(session)


def begin(sessions: Sessions, mine: Work, name: str, job_id: str, attempt: int) -> None:
    with sessions.begin() as session:
        mine.claims += transitions.begin(session, job_id, attempt, name, os.getpid(), LEASE) is not None


def end(sessions: Sessions, job_id: str, attempt: int) -> None:
    with sessions.begin() as session:
        attempts.finish(session, job_id, attempt, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cpu_of_own() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of_all() -> float:
    """Seconds that the machine has computed."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def double_claims(engine: sa.Engine) -> int:
    with engine.begin() as connection:
        begun = sa.select(Event.job_id, Event.data["attempt"].as_integer()).where(
            Event.type == "status", Event.data["status"].as_string() == JobStatus.RUNNING
        )
        counted = Counter(map(tuple, connection.execute(begun)))
        attempted = connection.scalar(sa.select(sa.func.sum(Job.attempt)))
    return sum(counted.values()) - len(counted) + abs(len(counted) - (attempted or 0))


def pass_when_all_is_taken(sessions: Sessions, size: Size) -> None:
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(attempt=0, status=JobStatus.QUEUED, finished_at=None))
    register(sessions, 4, FEW_DEVICES)
    with sessions.begin() as session:
        for given in scheduler.schedule(session):
            transitions.begin(session, given.job_id, given.attempt, given.workers[0], 1, LEASE)
    show(
        f"one pass, {size.jobs:,} jobs queued, 4 workers, nothing free ({size.passes})",
        [timed(lambda: one_pass(sessions)) for _ in range(size.passes)],
    )


if __name__ == "__main__":
    main()
