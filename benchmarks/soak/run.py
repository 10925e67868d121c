"""One soak: starts the service, lets owners and chaos loose on it, waits until all has come to an end."""

import random
import sched
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.soak.chaos import Chaos, trainers
from benchmarks.soak.ledger import Ledger, read_ledger
from benchmarks.soak.orders import orders
from benchmarks.soak.owners import Owners
from contract.status import TERMINAL
from store.models import Job
from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.servers import Servers, running_servers
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.waiting import until

SLOTS = 3
"""Of each worker."""
OPEN_JOBS = 2
"""For each slot, at most."""
LONGEST_CHAOS = 3.0
"""Seconds for each job. Those that are sent later have peace."""
LONGEST_ROUND = 150.0
"""Seconds in which each kind of strike has come once, more than enough on a loaded machine, too."""
LONGEST_PEACE = 180.0
"""Seconds from then until all have been sent; until every job has ended; and until nothing is left of them."""

SETTINGS = {
    "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
    "FINETUNED_ADDRESS": "127.0.0.1",
    "FINETUNED_SLOTS": str(SLOTS),
    # However often a job is struck, it does not fail of that.
    "FINETUNED_MAX_RETRIES": "100",
    "FINETUNED_RETRY_WAIT": "PT0.2S",
    "FINETUNED_LONGEST_RETRY_WAIT": "PT2S",
}


def soak(folder: Path, jobs: int, workers: int, seed: int) -> Ledger:
    """`folder` must be open to the user that PostgreSQL runs as. Call it from the main thread."""
    began = time.monotonic()
    sent = orders(jobs, random.Random(f"jobs {seed}"))
    agenda = sched.scheduler()
    with running_servers(folder) as ours, live_service(folder / "home", ours, workers) as live:
        engine = sa.create_engine(ours.database.url, pool_pre_ping=True)
        owners = Owners(live, engine, sent, OPEN_JOBS * SLOTS * workers, agenda, random.Random(f"owners {seed}"))
        chaos_ends = time.monotonic() + LONGEST_CHAOS * jobs + LONGEST_ROUND
        chaos = Chaos(
            live,
            ours,
            lambda: (owners.sending or chaos.owes) and time.monotonic() < chaos_ends,
            agenda,
            random.Random(f"chaos {seed}"),
        )
        agenda.enter(0, 1, owners.begin)
        agenda.enter(2, 1, chaos.strike)
        wait(lambda: _all_is_done(agenda), chaos_ends + LONGEST_PEACE)
        wait(lambda: _all_have_ended(engine), time.monotonic() + LONGEST_PEACE)
        wait(lambda: not busy_devices(live) and not trainers(live.home / "runs"), time.monotonic() + LONGEST_PEACE)
        chaos.mend()
        orphans = [f"{process}" for process in trainers(live.home / "runs")] + live.strangers()
        orphans += [f"{device}" for device in busy_devices(live)]
        with Session(engine) as session:
            ledger = read_ledger(session, sent, chaos.strikes, orphans)
        engine.dispose()
        reported = [run.read_bytes() for run in (live.home / "runs").glob("*/attempt-*/events.jsonl")]
        ledger.cut_lines = sum(bool(events) and not events.endswith(b"\n") for events in reported)
    ledger.deserters = chaos.deserters
    ledger.unanswered = owners.unanswered
    ledger.seconds = time.monotonic() - began
    return ledger


@contextmanager
def live_service(home: Path, ours: Servers, workers: int) -> Iterator[Service]:
    service.migrate(ours.database.url)
    add_model_and_dataset(home)
    names = [f"w{number}" for number in range(1, workers + 1)]
    with service.running(home, ours.database.url, ours.broker.url, names, **SETTINGS) as live:
        until(lambda: len(live.client.get("/workers").json()["data"]) == workers)
        yield live


def wait(over: Callable[[], bool], deadline: float) -> None:
    """Until it is over, or has taken too long: the ledger tells of what is left."""
    while not over() and time.monotonic() < deadline:
        time.sleep(0.05)


def _all_is_done(agenda: sched.scheduler) -> bool:
    agenda.run(blocking=False)
    return agenda.empty()


def _all_have_ended(engine: sa.Engine) -> bool:
    with Session(engine) as session:
        return session.scalar(sa.select(Job.id).where(Job.status.not_in(TERMINAL)).limit(1)) is None
