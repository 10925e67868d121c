"""PostgreSQL and Valkey that may be stopped and started while the service runs on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from finetuned.stack import postgres, valkey


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

    def start_what_is_down(self) -> None:
        if not self.database.child.alive:
            self.start_database()
        if not self.broker.child.alive:
            self.start_broker()

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.broker.socket))


@contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    """Both, with their data in `folder`."""
    database = postgres.launch_postgres(folder / "postgres", folder / "postgres.log")
    broker = valkey.launch_valkey(folder / "valkey", folder / "valkey.log")
    ours = Servers(folder, database, broker)
    try:
        postgres.await_postgres(database)
        valkey.await_valkey(broker)
        yield ours
    finally:
        ours.stop_broker()
        ours.stop_database()
