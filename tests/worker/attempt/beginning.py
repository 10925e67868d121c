"""Jobs that are begun, in this thread or beside it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from contract.machine import Machine
from contract.recipe import Recipe
from contract.run_dir import RunDir, saved_states
from store import artifacts
from store.jobs import jobs, progress
from store.jobs.jobs import Part
from store.jobs.progress import Cursor
from store.models import Job
from store.scheduling import workers
from store.session import Sessions, make_sessions
from tests.placing import begin, cpu
from tests.worker.test_guard import until
from worker.attempt import lifecycle
from worker.attempt.lifecycle import Attempt
from worker.settings import WorkerSettings

CPU = cpu(1)


def create(sessions: Sessions, **fields: Any) -> str:
    with sessions.begin() as session:
        return jobs.create(session, Recipe.model_validate({"model": "tiny", "dataset": "rows.jsonl", **fields})).id


def place(sessions: Sessions, machine: Machine = CPU) -> Part:
    """The job that waits, begun on the machine."""
    with sessions.begin() as session:
        workers.register(session, "worker", "first", "localhost", machine)
        (part,) = begin(session)
    return part


def run(sessions: Sessions, settings: WorkerSettings, machine: Machine = CPU, **fields: Any) -> Job:
    """A new job, after its first attempt."""
    return run_next(sessions, settings, create(sessions, **fields), machine)


def run_next(sessions: Sessions, settings: WorkerSettings, job_id: str, machine: Machine = CPU) -> Job:
    lifecycle.run(Attempt(sessions, settings, machine, place(sessions, machine), lambda: False))
    return get(sessions, job_id)


def get(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        assert workers.leases(session) == []
        return jobs.get(session, job_id)


def told(sessions: Sessions, job_id: str, kind: str) -> list[dict[str, Any]]:
    with sessions.begin() as session:
        happened = progress.events_since(session, job_id, Cursor(), limit=1000)
    return [each.data for each in happened if each.type == kind]


def run_dir(settings: WorkerSettings, job: Job, number: int = 1) -> RunDir:
    return RunDir(settings.runs / artifacts.run_path(job.id, number))


def states(run: RunDir) -> list[str]:
    return [path.name for path in saved_states([run])]


class Background:
    """An attempt that is under way."""

    def __init__(self, sessions: Sessions, settings: WorkerSettings, part: Part) -> None:
        self.draining = threading.Event()
        self.attempt = Attempt(sessions, settings, CPU, part, self.draining.is_set)
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
