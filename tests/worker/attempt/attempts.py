"""Jobs that are begun, in this thread or beside it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from contract.machine import Machine
from contract.run_dir import RunDir, list_states
from store import artifacts
from store.jobs import jobs
from store.jobs.transitions import AttemptPart
from store.models import Job
from store.scheduling import workers
from store.session import Sessions, make_sessions
from tests.support.jobs import begin, cpu, create_job
from tests.support.waiting import until
from worker.attempt import lifecycle
from worker.attempt.context import Attempt
from worker.attempt.timing import NORMAL, Timing
from worker.settings import WorkerSettings

CPU = cpu(1)


def place(sessions: Sessions, machine: Machine = CPU) -> AttemptPart:
    """The job that waits, begun on the machine."""
    with sessions.begin() as session:
        workers.register(session, "worker", "first", "localhost", machine)
        (part,) = begin(session)
    return part


def run(sessions: Sessions, settings: WorkerSettings, machine: Machine = CPU, **fields: Any) -> Job:
    """A new job, after its first attempt."""
    return run_next(sessions, settings, create_job(sessions, **fields), machine)


def run_next(sessions: Sessions, settings: WorkerSettings, job_id: str, machine: Machine = CPU) -> Job:
    lifecycle.run(Attempt(sessions, settings, machine, place(sessions, machine), lambda: False))
    return get_ended(sessions, job_id)


def get_ended(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        assert workers.list_leases(session) == []
        return jobs.get(session, job_id)


def run_dir(settings: WorkerSettings, job: Job, number: int = 1) -> RunDir:
    return RunDir(settings.runs / artifacts.run_path(job.id, number))


def states(run: RunDir) -> list[str]:
    return [path.name for path in list_states([run])]


class Background:
    """An attempt that is under way."""

    def __init__(
        self, sessions: Sessions, settings: WorkerSettings, part: AttemptPart, timing: Timing = NORMAL
    ) -> None:
        self.draining = threading.Event()
        self.attempt = Attempt(sessions, settings, CPU, part, self.draining.is_set, timing)
        self._thread = threading.Thread(target=lifecycle.run, args=(self.attempt,))
        self._thread.start()

    @property
    def run_dir(self) -> RunDir:
        return self.attempt.run_dir

    @property
    def exit_report(self) -> Path:
        """There when every process has gone."""
        return self.run_dir.path / "exit_report.json"

    def wait_for_a_word(self) -> None:
        until(lambda: self.run_dir.log.exists() and self.run_dir.log.stat().st_size > 0)

    def wait_for_events(self, count: int) -> None:
        until(lambda: self.run_dir.events.exists() and self.run_dir.events.read_text().count("\n") >= count)

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


class Way:
    """To the database, of one worker alone."""

    def __init__(self, database_url: str, folder: Path) -> None:
        url = sa.make_url(database_url)
        self._path = folder / "way"
        self._socket = str(url.query["host"])
        self.open()
        url = url.update_query_dict({"host": str(self._path)})
        self.sessions = make_sessions(sa.create_engine(url, poolclass=sa.NullPool))

    def open(self) -> None:
        if not self._path.is_symlink():
            self._path.symlink_to(self._socket)

    def shut(self) -> None:
        self._path.unlink()


Begin = Callable[..., Background]
