import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from store.jobs.transitions import AttemptPart
from store.session import Sessions
from tests.support.artifacts import publishing_on
from tests.support.files import write_dataset, write_model
from tests.support.service import FAKE_TRAINER
from tests.worker.attempt.attempts import Background, Begin, Way, place
from worker.attempt.timing import NORMAL, Timing
from worker.settings import WorkerSettings


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions) -> Iterator[WorkerSettings]:
    """Of a worker whose publishing process runs."""
    write_model(tmp_path / "models" / "tiny")
    write_dataset(tmp_path / "datasets" / "rows.jsonl")
    settings = WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker="worker",
        trainer=[sys.executable, "-P", str(FAKE_TRAINER)],
        retry_wait=timedelta(0),
    )
    with publishing_on(sessions, settings):
        yield settings


@pytest.fixture
def way(database_url: str) -> Iterator[Way]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path may not be as long as pytest's are
        yield Way(database_url, Path(folder))


@pytest.fixture
def begin_beside(sessions: Sessions, settings: WorkerSettings, way: Way) -> Iterator[Begin]:
    """Begins with the job that waits, in a thread."""
    begun: list[Background] = []

    def begin_beside(
        its_sessions: Sessions = sessions,
        its_settings: WorkerSettings = settings,
        part: AttemptPart | None = None,
        timing: Timing = NORMAL,
    ) -> Background:
        begun.append(Background(its_sessions, its_settings, part or place(sessions), timing))
        return begun[-1]

    yield begin_beside
    way.open()
    for each in begun:
        each.draining.set()
        each.end()
