"""The service with two workers, on servers of its own that a test may stop."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetuned import postgres, valkey
from tests import service
from tests.files import write_dataset, write_model
from tests.servers import Servers
from tests.service import FAKE_TRAINER, Service


@pytest.fixture(scope="module")
def servers(servers_folder: Path) -> Iterator[Servers]:
    folder = servers_folder / "faults"
    folder.mkdir()
    database = postgres.launch_postgres(folder / "postgres", folder / "postgres.log")
    broker = valkey.launch_valkey(folder / "valkey", folder / "valkey.log")
    servers = Servers(folder, database, broker)
    try:
        postgres.await_postgres(database)
        valkey.await_valkey(broker)
        yield servers
    finally:
        servers.stop_broker()
        servers.stop_database()


@pytest.fixture(scope="module")
def live(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = {**os.environ, "FINETUNED_DATABASE_URL": servers.database.url}
    service.run("migrations", environment)
    home = tmp_path_factory.mktemp("home")
    write_model(home / "models" / "tiny")
    write_dataset(home / "datasets" / "rows.jsonl")
    settings = {"FINETUNED_TRAINER": f"{sys.executable} {FAKE_TRAINER}", "FINETUNED_RETRY_WAIT": "PT0.2S"}
    with service.running(home, servers.database.url, servers.broker.url, ["a", "b"], **settings) as running:
        yield running
