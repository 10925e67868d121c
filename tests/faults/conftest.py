"""The service with two workers, on servers of its own that a test may stop."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.servers import Servers, running_servers
from tests.support.service import FAKE_TRAINER, Service


@pytest.fixture(scope="module")
def servers(servers_folder: Path) -> Iterator[Servers]:
    folder = servers_folder / "faults"
    folder.mkdir()
    with running_servers(folder) as servers:
        yield servers


@pytest.fixture(scope="module")
def live(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service.migrate(servers.database.url)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    # All else as by default: what is promised of times is promised of that.
    trainer = f"{sys.executable} -P {FAKE_TRAINER}"
    settings = {"FINETUNED_TRAINER": trainer, "FINETUNED_ADDRESS": "127.0.0.1"}
    with service.running(home, servers.database.url, servers.broker.url, ["a", "b"], **settings) as running:
        running.servers = servers
        yield running
