"""One soak: starts the service, lets owners and chaos loose on it, waits until all has come to an end."""

import random
import sched
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.soak.chaos import Chaos, trainers
from benchmarks.soak.cluster import ClusterChaos, left_on_cluster, write_profiles
from benchmarks.soak.ledger import Ledger, read_ledger
from benchmarks.soak.orders import Order, orders
from benchmarks.soak.owners import Owners
from contract.status import TERMINAL
from store.models import Job
from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.servers import Servers, running_servers
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.slurm import SlurmCluster, running_cluster
from tests.support.waiting import until

SLOTS = 3
"""Of each worker."""
OPEN_JOBS = 2
"""For each slot, at most."""
LONGEST_CHAOS = 3.0
"""Seconds for each job. Those that are sent later have peace."""
LONGEST_CHAOS_ON_CLUSTER = 8.0
"""Slurm takes seconds to start and to end a job."""
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


def soak(folder: Path, jobs: int, workers: int, seed: int, *, on_cluster: bool = False) -> Ledger:
    """`folder` must be open to the user that PostgreSQL runs as. Call it from the main thread."""
    began = time.monotonic()
    with ExitStack() as stack:
        ours = stack.enter_context(running_servers(folder))
        cluster = stack.enter_context(running_cluster()) if on_cluster else None
        live = stack.enter_context(live_service(folder / "home", ours, workers, cluster))
        engine = sa.create_engine(ours.database.url, pool_pre_ping=True)
        stack.callback(engine.dispose)
        ledger = _soak(
            live, ours, cluster, engine, orders(jobs, random.Random(f"jobs {seed}"), "low" if cluster else None), seed
        )
        reported = [run.read_bytes() for run in (live.home / "runs").glob("*/attempt-*/events.jsonl")]
        ledger.cut_lines = sum(bool(events) and not events.endswith(b"\n") for events in reported)
    ledger.seconds = time.monotonic() - began
    return ledger


def _soak(
    live: Service, ours: Servers, cluster: SlurmCluster | None, engine: sa.Engine, sent: list[Order], seed: int
) -> Ledger:
    agenda = sched.scheduler()
    most_open = OPEN_JOBS * SLOTS * len(live.workers)
    owners = Owners(live, engine, sent, most_open, agenda, random.Random(f"owners {seed}"))
    each = LONGEST_CHAOS_ON_CLUSTER if cluster else LONGEST_CHAOS
    chaos_ends = time.monotonic() + each * len(sent) + LONGEST_ROUND

    def going() -> bool:
        return (owners.sending or chaos.owes) and time.monotonic() < chaos_ends

    its = (live, ours, going, agenda, random.Random(f"chaos {seed}"))
    chaos = ClusterChaos(*its, cluster, engine) if cluster else Chaos(*its)
    agenda.enter(0, 1, owners.begin)
    agenda.enter(2, 1, chaos.strike)
    wait(lambda: _all_is_done(agenda), chaos_ends + LONGEST_PEACE)
    wait(lambda: _all_have_ended(engine, chaos), time.monotonic() + LONGEST_PEACE)
    wait(lambda: not busy_devices(live) and not _processes(live, cluster), time.monotonic() + LONGEST_PEACE)
    chaos.mend()
    orphans = [*_processes(live, cluster), *live.strangers(), *(f"{device}" for device in busy_devices(live))]
    with Session(engine) as session:
        ledger = read_ledger(session, sent, chaos.strikes, orphans)
    ledger.deserters = chaos.deserters
    ledger.unanswered = owners.unanswered
    return ledger


def _processes(live: Service, cluster: SlurmCluster | None) -> list[str]:
    """Of jobs, and what is left of them in Slurm."""
    runs = live.home / "runs"
    return [*(f"{process}" for process in trainers(runs)), *(left_on_cluster(cluster, runs) if cluster else [])]


@contextmanager
def live_service(home: Path, ours: Servers, workers: int, cluster: SlurmCluster | None = None) -> Iterator[Service]:
    service.migrate(ours.database.url)
    add_model_and_dataset(home)
    names = [f"w{number}" for number in range(1, workers + 1)]
    settings = SETTINGS | (_settings_of(cluster, home) if cluster else {})
    with service.running(home, ours.database.url, ours.broker.url, names, **settings) as live:
        until(lambda: len(live.client.get("/workers").json()["data"]) == workers, seconds=90)
        yield live


def _settings_of(cluster: SlurmCluster, home: Path) -> dict[str, str]:
    its = {name: cluster.environment[name] for name in ("PATH", "SLURM_CONF")}
    return its | {"FINETUNED_PROFILES": str(write_profiles(home, SLOTS))}


def wait(over: Callable[[], bool], deadline: float) -> None:
    """Until it is over, or has taken too long: the ledger tells of what is left."""
    while not over() and time.monotonic() < deadline:
        time.sleep(0.1)


def _all_is_done(agenda: sched.scheduler) -> bool:
    agenda.run(blocking=False)
    return agenda.empty()


def _all_have_ended(engine: sa.Engine, chaos: Chaos) -> bool:
    chaos.mend()  # nobody strikes any more, and what was struck last may end only now
    with Session(engine) as session:
        return session.scalar(sa.select(Job.id).where(Job.status.not_in(TERMINAL)).limit(1)) is None
