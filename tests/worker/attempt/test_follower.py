"""A machine's part in an attempt whose head is another. Here the head is the test."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.exit_report import ExitReport
from contract.recipe import Recipe
from contract.status import JobStatus
from store.jobs import actions, attempts, jobs, transitions
from store.jobs.attempts import AttemptEnd
from store.jobs.transitions import AttemptPart
from store.scheduling import leases, scheduler
from store.session import Sessions
from tests.support.jobs import LEASE, RETRIES, cpu, register
from tests.support.waiting import until
from worker.attempt import follower
from worker.attempt.context import Attempt
from worker.settings import WorkerSettings

HEAD, OTHER = "a", "b"
MEETING = "127.0.0.1:29500"

# It tells how it was started, and then trains for ever; the second one is deaf besides.
TRAINER = """
import json, os, pathlib, signal, sys, time
{first}
file = pathlib.Path(sys.argv[1], "launch")
file.with_suffix(".new").write_text(json.dumps([sys.argv[1:], dict(os.environ)]))
file.with_suffix(".new").rename(file)
while True: time.sleep(1000)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker=OTHER,
        address="127.0.0.1",
        trainer=[sys.executable, "-c", TRAINER.format(first="")],
    )


class Running:
    """A job on two machines: what the head does is recorded, and the other's part runs in a thread."""

    def __init__(self, sessions: Sessions, settings: WorkerSettings) -> None:
        self._sessions = sessions
        recipe = Recipe.model_validate({"model": "m", "dataset": "d", "resources": {"nodes": 2}})
        with sessions.begin() as session:
            register(session, HEAD)
            register(session, OTHER)
            self.job_id = jobs.create(session, recipe).id
            (placed,) = scheduler.schedule(session)
            part = transitions.begin(session, self.job_id, 1, OTHER, os.getpid(), LEASE)
        assert part is not None
        assert placed.workers == [HEAD, OTHER]
        self.attempt = Attempt(sessions, settings, cpu(1), part, lambda: False)
        self.attempt.run_dir.path.mkdir(parents=True)
        self.attempt.run_dir.recipe.write_text(recipe.model_dump_json())
        self._thread = threading.Thread(target=follower.run, args=(self.attempt,))
        self._thread.start()

    def begin_head(self) -> AttemptPart | None:
        with self._sessions.begin() as session:
            return transitions.begin(session, self.job_id, 1, HEAD, 1, LEASE)

    def launch_head(self, command: str = "trainer") -> None:
        self.begin_head()
        with self._sessions.begin() as session:
            jobs.launch(session, self.job_id, 1, command, LEASE, MEETING)

    def part(self) -> None:
        with self._sessions.begin() as session:
            jobs.signal_peers_done(session, self.job_id, 1, LEASE)

    def lose_head(self) -> None:
        with self._sessions.begin() as session:
            if attempts.fail_lost(session, self.job_id, 1, RETRIES) is None:
                leases.revoke(session, self.job_id)

    def force_cancel(self) -> None:
        with self._sessions.begin() as session:
            actions.cancel(session, self.job_id, force=True)

    def reported(self) -> tuple[list[str], dict[str, str]]:
        """The arguments and the environment of its trainer, once it has started."""
        reported = self.attempt.run_dir.path / "launch"
        until(reported.exists)
        arguments, environment = json.loads(reported.read_text())
        return arguments, environment

    def exit_report(self) -> ExitReport | None:
        path = self.attempt.run_dir.path / "exit_report-1.json"
        return ExitReport.model_validate_json(path.read_bytes()) if path.exists() else None

    def wait(self, seconds: float = 20) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        with self._sessions.begin() as session:
            assert OTHER not in leases.machines(session, self.job_id, 1)


Start = Callable[..., Running]


@pytest.fixture
def start(sessions: Sessions, settings: WorkerSettings) -> Iterator[Start]:
    running: list[Running] = []

    def start(its: WorkerSettings = settings) -> Running:
        running.append(Running(sessions, its))
        return running[-1]

    yield start
    for each in running:
        each.lose_head()
        each.wait()


def deaf(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"trainer": [sys.executable, "-c", TRAINER.format(first=DEAF)]})


def test_follower_waits_for_the_head_and_resumes(start: Start, settings: WorkerSettings) -> None:
    running = start()
    running.launch_head("trainer --resume '/a state/step-000004'")
    (run_dir, *arguments), environment = running.reported()
    assert run_dir == str(running.attempt.run_dir.path)
    assert arguments == ["--cache", str(settings.cache), "--resume", "/a state/step-000004"]
    assert environment["FINETUNED_WORKER"] == OTHER
    assert environment["FINETUNED_RUN"] == run_dir
    assert environment["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize("end", [Running.part, Running.lose_head])
def test_it_ends_with_the_attempt(start: Start, end: Callable[[Running], None]) -> None:
    running = start()
    running.launch_head()
    running.reported()
    end(running)
    running.wait()
    exit_report = running.exit_report()
    assert exit_report is not None
    assert [each.killed for each in exit_report.processes] == [False]


def test_follower_without_a_head_starts_nothing(start: Start) -> None:
    running = start()
    running.lose_head()
    running.wait()
    assert running.exit_report() is None


def test_follower_of_a_failed_head_starts_nothing(start: Start, sessions: Sessions) -> None:
    running = start()
    running.begin_head()
    running.part()
    running.wait()
    assert running.exit_report() is None
    with sessions.begin() as session:
        assert (
            attempts.finish(session, running.job_id, 1, AttemptEnd(JobStatus.CANCELLED), RETRIES) is JobStatus.CANCELLED
        )


def test_forced_cancel_leaves_it_no_time(start: Start, settings: WorkerSettings) -> None:
    running = start(deaf(settings))
    running.launch_head()
    running.reported()
    running.force_cancel()
    running.wait()
    exit_report = running.exit_report()
    assert exit_report is not None
    assert [each.killed for each in exit_report.processes] == [True]


def test_stubborn_follower_is_killed_after_its_grace(start: Start, settings: WorkerSettings) -> None:
    running = start(deaf(settings).model_copy(update={"grace": timedelta(seconds=0.2)}))
    running.launch_head()
    running.reported()
    running.part()
    running.wait()
    exit_report = running.exit_report()
    assert exit_report is not None
    assert exit_report.seconds >= 0.2
