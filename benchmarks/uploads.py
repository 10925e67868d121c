"""How fast a large upload is, beside the disk itself, and what it costs in memory: `python -m benchmarks.uploads`.

The same bytes, JSON Lines, are written to a file and synced, and uploaded as a form over loopback to a real API, which
hashes, writes and syncs them: by turns, on one disk. The check of the rows comes after the answer, and is timed apart.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from api.datasets.creation import CHECK_WITHIN
from benchmarks.servers import running_servers
from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.service import Service

MIB = 1 << 20
LEAST = 0.60
MOST_GROWN = 50
"""MB. Both are promised of a file of 2 GB."""
BOUNDARY = "3f1d0c5b9a7e42d8b6f4a1c0e9d87256"
"""As long as those of common clients: what looks for it is the faster, the longer it is."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Upload a large file, beside the rate of the disk.")
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; the default is the temporary folder")
    parser.add_argument("--short", action="store_true", help="32 MB, once")
    options = parser.parse_args()
    megabytes, rounds = (32, 1) if options.short else (options.megabytes, options.rounds)
    with running_servers(options.folder) as servers:
        add_model_and_dataset(servers.home)
        with service.running(servers.home, servers.database_url, servers.broker_url, workers=()) as live:
            measure(live, servers.folder / "raw", megabytes, rounds)


def measure(live: Service, raw: Path, megabytes: int, rounds: int) -> None:
    upload(live, 1)  # what is imported at the first one is there
    before = resident(live, "VmRSS")
    ratios = []
    for number in range(1, rounds + 1):
        disk = write(raw, megabytes)
        dataset_id, sent = upload(live, megabytes)
        began = time.perf_counter()
        while live.client.get(f"/datasets/{dataset_id}").json()["status"] == "uploaded":
            time.sleep(0.2)
        check = time.perf_counter() - began
        live.client.delete(f"/datasets/{dataset_id}").raise_for_status()
        ratios.append(disk / sent)
        print(
            f"round {number}: disk {megabytes / disk:.0f} MiB/s, upload {megabytes / sent:.0f} MiB/s, "
            f"ratio {disk / sent:.2f}; the check of the rows {check:.0f} s after it"
        )
    ratio = statistics.median(ratios)
    print(f"ratio, the median of {rounds}: {ratio:.2f}")
    print(f"    {'holds' if ratio >= LEAST else 'does not hold'}: {LEAST:.2f} of the disk's rate")
    grown = (resident(live, "VmHWM") - before) / 1e6
    print(f"memory of the API's process grew by {grown:.0f} MB at most")
    print(f"    {'holds' if grown < MOST_GROWN else 'does not hold'}: less than {MOST_GROWN} MB")


def write(path: Path, megabytes: int) -> float:
    """Seconds, until the disk has them."""
    piece = rows()
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(megabytes):
            file.write(piece)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def upload(live: Service, megabytes: int) -> tuple[str, float]:
    """The dataset, and the seconds until the answer, less those that it waited for the check."""
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    began = time.perf_counter()
    answer = live.client.post("/datasets", content=form(megabytes), headers=headers, timeout=600)
    seconds = time.perf_counter() - began
    dataset = answer.raise_for_status().json()
    waited = CHECK_WITHIN if dataset["status"] == "uploaded" else 0.0
    return dataset["id"], seconds - waited


def form(megabytes: int) -> Iterator[bytes]:
    piece = rows()
    yield b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
    for _ in range(megabytes):
        yield piece
    yield b"\r\n--" + BOUNDARY.encode() + b"--\r\n"


def rows() -> bytes:
    """A MiB of them."""
    row = json.dumps({"prompt": "What is it?", "completion": "a" * 4000}).encode() + b"\n"
    return (row * (MIB // len(row) + 1))[: MIB // len(row) * len(row)].ljust(MIB, b"\n")


def resident(live: Service, what: str) -> int:
    status = Path(f"/proc/{live.api.pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) << 10


if __name__ == "__main__":
    main()
