"""How fast an artifact is downloaded, beside a plain read of the same bytes through a socket, and what memory it takes.

    python -m benchmarks.downloads --megabytes 1024

Both on this machine, one after the other, three times each by turns; the API is a process of its own.
"""

import argparse
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from contract.events import Checkpoint
from contract.recipe import Dataset, Recipe
from finetuned import postgres, valkey
from store import artifacts, jobs
from store.session import make_sessions
from tests.publishing import publish
from tests.service import free_port, run, start, wait_for_api

CHUNK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure downloads of an artifact.")
    parser.add_argument("--megabytes", type=int, default=1024)
    size = parser.parse_args().megabytes << 20
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        home = Path(name) / "home"
        home.mkdir()
        with postgres.running(Path(name) / "postgres") as database, valkey.running(Path(name) / "valkey") as broker:
            measure(home, database, broker, size)


def measure(home: Path, database: str, broker: str, size: int) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": database,
        "FINETUNED_BROKER_URL": broker,
        "FINETUNED_HOME": str(home),
        "FINETUNED_PORT": str(port),
    }
    run("migrations", environment)
    job_id, weights = furnish(home, database, size)
    api = start("api", environment, home, "api")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for_api(client, api, home)
            base = f"/jobs/{job_id}/artifacts/adapter.tar.gz"
            paths = {"archive": base, "file": f"{base}/files/adapter_model.safetensors"}
            download(port, paths["archive"])
            before = resident(api.pid)
            rates: dict[str, list[float]] = {"raw": [], **{name: [] for name in paths}}
            for _ in range(3):
                rates["raw"].append(raw(weights))
                for name, path in paths.items():
                    rates[name].append(download(port, path))
            for name, found in rates.items():
                share = max(found) / max(rates["raw"])
                print(f"{name:8} {max(found) / 1e6:8.0f} MB/s   {share:.2f} of raw")
            print(f"resident memory of the API grew by {(resident(api.pid) - before) / 1e6:.1f} MB")
    finally:
        api.terminate()
        api.wait(30)


def furnish(home: Path, database: str, size: int) -> tuple[str, Path]:
    """A job with an adapter of so many bytes, published."""
    sessions = make_sessions(sa.create_engine(database))
    with sessions.begin() as session:
        job_id = jobs.create(session, Recipe(model="m", dataset=Dataset(path="d"))).id
        saved = Checkpoint(time=1, step=1, path="adapter", bytes=size, final=True)
        artifacts.add_checkpoint(session, job_id, 1, saved)
    weights = home / "runs" / artifacts.run_path(job_id, 1) / "adapter" / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))
    publish(sessions, home)
    return job_id, weights


def download(port: int, path: str) -> float:
    """Bytes a second, by a client that does as little as `raw` does."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return drain(connection)


def raw(path: Path) -> float:
    """Bytes a second of a read loop that writes to a socket."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                connection.sendall(chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        with socket.create_connection(listener.getsockname()) as connection:
            rate = drain(connection)
        serving.join()
    return rate


def drain(connection: socket.socket) -> float:
    buffer = bytearray(CHUNK)
    began, size = time.perf_counter(), 0
    while got := connection.recv_into(buffer):
        size += got
    return size / (time.perf_counter() - began)


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
