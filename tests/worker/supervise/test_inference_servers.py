"""Rounds of a worker's inference servers, without a model."""

from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from store.models import InferenceServer
from store.scheduling import inference, workers
from store.session import Sessions
from tests.support.files import write_model
from tests.support.jobs import cpu
from worker.settings import WorkerSettings
from worker.supervise.inference import FOLDER, InferenceServers


@pytest.fixture
def servers(sessions: Sessions, settings: WorkerSettings) -> InferenceServers:
    with sessions.begin() as session:
        workers.register(session, settings.worker, "first", "localhost", cpu(2))
    for base in ("one", "two"):
        write_model(settings.home / "models" / base)
    return InferenceServers(sessions, settings, cpu(2), lambda: False)


def placed(sessions: Sessions) -> Sequence[str]:
    """Servers of both models, that have a device each."""
    with sessions.begin() as session:
        for base in ("one", "two"):
            inference.want(session, base)
    with sessions.begin() as session:
        inference.place(session)
        return session.scalars(sa.select(InferenceServer.id).where(InferenceServer.state == "starting")).all()


def states(sessions: Sessions) -> dict[str, str]:
    with sessions.begin() as session:
        return {row.base: row.state for row in session.scalars(sa.select(InferenceServer))}


def test_ready_row_without_a_process_frees_its_device(sessions: Sessions, servers: InferenceServers) -> None:
    with sessions.begin() as session:
        for server_id in placed(sessions):
            inference.set_ready(session, server_id, "127.0.0.1:1")
    servers.round()
    servers.round()
    assert states(sessions) == {}


def test_server_whose_folder_fails_holds_no_other_up(
    sessions: Sessions, servers: InferenceServers, settings: WorkerSettings
) -> None:
    (settings.runs / FOLDER).mkdir(parents=True)
    for server_id in placed(sessions):
        (settings.runs / FOLDER / server_id).write_text("in the way")
    servers.round()
    assert states(sessions) == {"one": "failed", "two": "failed"}
