"""The service with two workers, on servers of its own that a test may stop."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from finetuned import postgres, valkey
from tests import service
from tests.files import write_dataset, write_model
from tests.service import FAKE_TRAINER, Service


@dataclass
class Servers:
    folder: Path
    database: postgres.Postgres
    broker: valkey.Valkey

    def start_database(self) -> None:
        self.database = postgres.launch_postgres(self.folder / "postgres", self.folder / "postgres.log")
        postgres.await_postgres(self.database)

    def stop_database(self) -> None:
        postgres.stop_postgres(self.database)

    def start_broker(self) -> None:
        self.broker = valkey.launch_valkey(self.folder / "valkey", self.folder / "valkey.log")
        valkey.await_valkey(self.broker)

    def stop_broker(self) -> None:
        valkey.stop_valkey(self.broker)

    def client(self) -> "redis.Redis[bytes]":
        return redis.Redis(unix_socket_path=str(self.broker.socket))


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


def busy(live: Service) -> list[dict[str, object]]:
    """Devices that are not free."""
    try:
        workers = live.client.get("/workers").raise_for_status().json()
    except httpx.HTTPError:
        return [{}]
    listed = workers["data"] if isinstance(workers, dict) else workers
    return [device for worker in listed for device in worker["devices"] if device["status"] != "free"]
