"""How fast an artifact is downloaded, beside a plain read of the same bytes through a socket, and what memory it takes.

    python -m benchmarks.downloads --megabytes 1024

All on this machine, one after the other, three times each by turns, of which the medians are compared; the API is a
process of its own. An answer that is not 200, or not whole, ends it.
"""

import argparse
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from contract.events import Checkpoint
from contract.recipe import Dataset, Recipe
from finetuned.stack import postgres, valkey
from store import artifacts
from store.jobs import jobs
from store.session import make_sessions
from tests.publishing import publish
from tests.service import free_port, run, start, wait_for_api

CHUNK = 1 << 20
LONGEST_HEAD = 10_000
ROUNDS = 3
LEAST = 0.60
"""Of the raw rate, which is promised."""


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
            (listed,) = client.get(f"/jobs/{job_id}/artifacts").raise_for_status().json()["data"]
            sizes = {"archive": listed["bytes"], "file": size}
            download(port, paths["archive"], sizes["archive"])  # what is imported at the first one is there
            before = memory(api.pid, "VmRSS")
            rates: dict[str, list[float]] = {"raw": [], **{name: [] for name in paths}}
            for _ in range(ROUNDS):
                rates["raw"].append(raw(weights, size))
                for name, path in paths.items():
                    rates[name].append(download(port, path, sizes[name]))
            tell({name: statistics.median(found) for name, found in rates.items()})
            print(f"memory of the API's process grew by {(memory(api.pid, 'VmHWM') - before) / 1e6:.1f} MB at most")
    finally:
        api.terminate()
        api.wait(30)


def tell(rates: dict[str, float]) -> None:
    shares = {name: rate / rates["raw"] for name, rate in rates.items()}
    for name, rate in rates.items():
        print(f"{name:8} {rate / 1e6:8.0f} MB/s   {shares[name]:.2f} of raw")
    print(f"    {'holds' if min(shares.values()) >= LEAST else 'does not hold'}: {LEAST:.2f} of raw")


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


def download(port: int, path: str, size: int) -> float:
    """Bytes a second, by a client that does as little as `raw` does. Raises RuntimeError for what is not the whole."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        first, received, seconds = drain(connection)
    head = first.partition(b"\r\n\r\n")[0]
    if not head.startswith(b"HTTP/1.1 200 ") or received != len(head) + 4 + size:
        raise RuntimeError(f"{path}: {received} bytes, with {size} in the body: {head.decode('latin-1')}")
    return received / seconds


def raw(path: Path, size: int) -> float:
    """Bytes a second of a read loop that writes to a socket. Raises RuntimeError where it does not write all."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                connection.sendall(chunk)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        with socket.create_connection(listener.getsockname()) as connection:
            _, received, seconds = drain(connection)
        serving.join()
    if received != size:
        raise RuntimeError(f"{received} bytes of {size}")
    return received / seconds


def drain(connection: socket.socket) -> tuple[bytes, int, float]:
    """What came first, the number of all bytes, and the seconds that they took."""
    buffer = bytearray(CHUNK)
    began = time.perf_counter()
    size = connection.recv_into(buffer)
    first = bytes(buffer[: min(size, LONGEST_HEAD)])
    while got := connection.recv_into(buffer):
        size += got
    return first, size, time.perf_counter() - began


def memory(pid: int, what: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) << 10


if __name__ == "__main__":
    main()
