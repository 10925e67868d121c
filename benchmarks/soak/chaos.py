"""Breaks the service, one part after another, and starts again what systemd would start again.

Children are started by the thread that runs the agenda, which must be the main one: their death signal is bound to it.
"""

import os
import random
import sched
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.processes import parent_of
from store.scheduling.workers import SILENCE
from tests.support.processes import read_proc
from tests.support.servers import Servers
from tests.support.service import Service, start
from worker.supervise.orphans import marks_of

Kinds = dict[str, tuple[int, Callable[[], bool]]]
"""Of strikes: how often each comes, beside the others, and what it does. It returns whether it found a victim."""


@dataclass(frozen=True)
class Process:
    """Of a trainer."""

    pid: int
    worker: str
    job_id: str
    part: str
    """guard, launcher or rank"""


@dataclass(frozen=True)
class Strike:
    time: float
    """Seconds since the epoch."""
    what: str
    worker: str | None = None
    job_id: str | None = None


def trainers(runs: Path) -> list[Process]:
    """The processes of trainers whose run folders lie below `runs`."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        marked = marks_of(pid)
        if marked and marked[1].is_relative_to(runs) and parent_of(pid) is not None:
            command = read_proc(pid, "cmdline")
            part = "guard" if b"guard.py" in command else "rank" if b"--rank" in command else "launcher"
            found.append(Process(pid, marked[0], marked[1].parent.name, part))
    return found


class Chaos:
    seconds_between_strikes = (0.3, 1.7)

    def __init__(
        self,
        live: Service,
        servers: Servers,
        going: Callable[[], bool],
        agenda: sched.scheduler,
        choose: random.Random,
    ) -> None:
        self._live = live
        self._servers = servers
        self._going = going
        self._agenda = agenda
        self._choose = choose
        self.strikes: list[Strike] = []
        self.deserters: list[str] = []
        self._hurt: set[str] = set()
        """What is down now, or stopped: workers by their names, the API, the database."""
        self._kinds = self._strikes_on_jobs() | self._strikes_on_the_service()
        firsts = choose.sample(list(self._kinds), len(self._kinds))
        self._next = sorted(firsts, key=lambda kind: kind not in self._strikes_on_jobs())
        """Each kind once, those first that want a job to strike; then they come as often as their weights say."""
        self.owes = True
        """Some kind has not been struck yet."""

    def _strikes_on_jobs(self) -> Kinds:
        return {
            "a rank": (6, lambda: self._process("rank")),
            "a launcher": (6, lambda: self._process("launcher")),
            "a guard": (5, lambda: self._process("guard")),
            "a pool process": (5, self._pool_process),
        }

    def _strikes_on_the_service(self) -> Kinds:
        return {
            "a worker's main process": (3, self._worker),
            "all processes of a worker": (2, self._family),
            "a worker stopped past its lease": (1, self._stop_worker),
            "the API": (2, self._api),
            "the broker emptied": (2, self._empty_broker),
            "the broker's connections cut": (2, self._cut_broker),
            "the broker restarted": (1, self._restart_broker),
            "the database restarted": (1, self._restart_database),
            "the database away for seconds": (1, self._lose_database),
        }

    def strike(self) -> None:
        """And again after a while, for as long as it is going."""
        self.mend()
        if not self._going():
            return
        if not self._next:
            weights = [weight for weight, _ in self._kinds.values()]
            self._next = self._choose.choices(list(self._kinds), weights)
        # What finds no victim now waits for its turn again, and the one after it has its own.
        for kind in list(self._next):
            if self._kinds[kind][1]():
                self._next.remove(kind)
                self.owes &= bool(self._next)
                break
        self._agenda.enter(self._choose.uniform(*self.seconds_between_strikes), 1, self.strike)

    def mend(self) -> None:
        """Starts again what has ended by itself, and remembers that."""
        for name in sorted(set(self._live.workers) - self._hurt):
            if (code := self._live.workers[name].poll()) is not None:
                self.deserters.append(f"worker {name} ended by itself, with {code}")
                self._live.start_worker(name)
        if "API" not in self._hurt and (code := self._live.api.poll()) is not None:
            self.deserters.append(f"the API ended by itself, with {code}")
            self._start_api()

    def _note(self, what: str, worker: str | None = None, job_id: str | None = None) -> bool:
        strike = Strike(time.time(), what, worker, job_id)
        self.strikes.append(strike)
        with (self._live.home / "strikes.log").open("a") as log:
            log.write(f"{time.strftime('%X', time.localtime(strike.time))} {what}: {worker} {job_id}\n")
        return True

    def _later(self, seconds: tuple[float, float], act: Callable[..., None], *arguments: object) -> None:
        self._agenda.enter(self._choose.uniform(*seconds), 0, act, arguments)

    def _process(self, part: str) -> bool:
        victims = [process for process in trainers(self._live.home / "runs") if process.part == part]
        if not victims:
            return False
        victim = self._choose.choice(victims)
        send(signal.SIGKILL, [victim.pid])
        return self._note(f"a {part}", victim.worker, victim.job_id)

    def _pool_process(self) -> bool:
        guards = [each for each in trainers(self._live.home / "runs") if each.part == "guard"]
        pools = {name: self._pool(name) for name in self._live.workers}
        followed = [(guard, pid) for guard in guards if (pid := parent_of(guard.pid)) in pools[guard.worker]]
        if not followed:
            return False
        victim, pid = self._choose.choice(followed)
        send(signal.SIGKILL, [pid])
        return self._note("a pool process", victim.worker, victim.job_id)

    def _pool(self, worker: str) -> list[int]:
        main = self._live.workers[worker].pid
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == main]

    def _some_worker(self) -> str | None:
        """One that is well; the last such one is left alone."""
        well = sorted(set(self._live.workers) - self._hurt)
        return self._choose.choice(well) if len(well) > 1 else None

    def _worker(self) -> bool:
        name = self._some_worker()
        if name is None:
            return False
        self._live.kill_worker(name)
        self._restart_worker_later(name)
        return self._note("a worker's main process", name)

    def _restart_worker_later(self, name: str) -> None:
        self._hurt.add(name)
        too_late = SILENCE.total_seconds() + 3
        self._later(self._choose.choice([(0.2, 4), (0.2, 4), (too_late, too_late)]), self._start_worker, name)

    def _start_worker(self, name: str) -> None:
        self._live.start_worker(name)
        self._hurt.remove(name)

    def _family(self) -> bool:
        """A worker with its pool and the guards, which have sessions of their own; at times the trainers, too."""
        name = self._some_worker()
        if name is None:
            return False
        spared = self._choose.choice([{"rank"}, set()])
        main = self._live.workers[name].pid
        family = [main, *self._pool(name)]
        send(signal.SIGSTOP, family)  # so that all of them die at once
        below = [
            each.pid for each in trainers(self._live.home / "runs") if each.worker == name and each.part not in spared
        ]
        send(signal.SIGKILL, [*below, *family])
        self._live.workers[name].wait()
        self._restart_worker_later(name)
        return self._note("all processes of a worker", name)

    def _stop_worker(self) -> bool:
        """Its trainers run on."""
        name = self._some_worker()
        if name is None:
            return False
        family = [self._live.workers[name].pid, *self._pool(name)]
        send(signal.SIGSTOP, family)
        self._hurt.add(name)
        past = SILENCE.total_seconds()
        self._later((past + 2, past + 6), self._go_on, name, family)
        return self._note("a worker stopped past its lease", name)

    def _go_on(self, name: str, family: Collection[int]) -> None:
        send(signal.SIGCONT, family)
        self._hurt.remove(name)

    def _api(self) -> bool:
        if "API" in self._hurt:
            return False
        self._hurt.add("API")
        self._live.api.kill()
        self._live.api.wait()
        self._later((0, 2), self._start_api)
        return self._note("the API")

    def _start_api(self) -> None:
        # Not waited for: without its database it is not well yet.
        self._live.api = start("api", self._live.environment, self._live.home, "api")
        self._hurt.discard("API")

    def _empty_broker(self) -> bool:
        with self._servers.client() as client:
            client.flushall()
        return self._note("the broker emptied")

    def _cut_broker(self) -> bool:
        with self._servers.client() as client:
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
        return self._note("the broker's connections cut")

    def _restart_broker(self) -> bool:
        self._servers.stop_broker()
        self._servers.start_broker()
        return self._note("the broker restarted")

    def _restart_database(self) -> bool:
        if "database" in self._hurt:
            return False
        self._servers.stop_database()
        self._servers.start_database()
        return self._note("the database restarted")

    def _lose_database(self) -> bool:
        if "database" in self._hurt:
            return False
        self._servers.stop_database()
        self._hurt.add("database")
        self._later((2, 6), self._start_database)
        return self._note("the database away for seconds")

    def _start_database(self) -> None:
        self._servers.start_database()
        self._hurt.remove("database")


def send(number: signal.Signals, pids: Collection[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
