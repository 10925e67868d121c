"""PostgreSQL with the service's tables, Valkey, and server processes on them, for one benchmark."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from finetuned.stack import postgres, valkey
from tests.support.servers import free_port
from tests.support.service import migrate


@dataclass(frozen=True)
class Servers:
    folder: Path
    database_url: str
    broker_url: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a part of the service on these servers."""
        return {
            **os.environ,
            "FINETUNED_DATABASE_URL": self.database_url,
            "FINETUNED_BROKER_URL": self.broker_url,
            "FINETUNED_HOME": str(self.home),
            "FINETUNED_SECRET_KEY": "-" * 32,
        }


@contextmanager
def running_servers(parent: Path | None = None) -> Iterator[Servers]:
    """Starts both with their data in a new folder, which is below `parent` or the temporary folder, and migrates."""
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-", dir=parent) as name:
        os.chmod(name, 0o755)  # PostgreSQL may run as another user
        folder = Path(name)
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            servers = Servers(folder, database_url, broker_url)
            servers.home.mkdir()
            migrate(database_url)
            yield servers


@contextmanager
def serving(command: list[str], environment: dict[str, str], path: str) -> Iterator[int]:
    """Runs a server with Python until the block ends; gives its port once it answers at `path`."""
    port = free_port()
    given = [f"--port={port}"] if "uvicorn" in command else []
    environment = {**environment, "FINETUNED_PORT": str(port)}
    server = subprocess.Popen(
        [sys.executable, *command, *given], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if server.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with exit code {server.returncode}")
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False).raise_for_status()
    except httpx.TransportError:
        return False
    return True
