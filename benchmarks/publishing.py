"""How long it takes to publish an adapter: to take its files into the storage and to digest them and their archive.

    python -m benchmarks.publishing --megabytes 1024

Prints the bytes of the files and of the archive, the seconds, and the seconds that two digests of the same bytes take
without any publishing, which is the floor. The median of three rounds.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from storage.backends import CHUNK, FolderStorage
from store import artifacts
from store.artifacts import Digests
from store.models import Artifact
from worker.publishing import upload

ROUNDS = 3
MOST = 1.5
"""Times the floor, which is promised."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the publishing of an adapter.")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--short", action="store_true", help="64 MB")
    options = parser.parse_args()
    size = (64 if options.short else options.megabytes) << 20
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        home = Path(name)
        artifact = Artifact(
            job_id="job_1", name=artifacts.ADAPTER, kind="adapter", path="job_1/attempt-1/adapter", bytes=0
        )
        weights = write(home / "runs" / artifact.path, size)
        floors, times = [], []
        for _ in range(ROUNDS):
            floors.append(digest_twice(weights))
            seconds, digests = publish(home, artifact)
            times.append(seconds)
    floor, taken = statistics.median(floors), statistics.median(times)
    print(f"files    {sum(file.bytes for file in digests.files):>14,} bytes in {len(digests.files)} files")
    print(f"archive  {digests.bytes:>14,} bytes, {artifact.name}")
    print(f"publish  {taken:14.2f} s   {size / taken / 1e6:.0f} MB/s   {taken / floor:.2f} of the floor")
    print(f"floor    {floor:14.2f} s")
    print(f"    {'holds' if taken <= MOST * floor else 'does not hold'}: {MOST:.1f} of the floor at most")


def write(folder: Path, size: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    weights = folder / "adapter_model.safetensors"
    with weights.open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))
    return weights


def publish(home: Path, artifact: Artifact) -> tuple[float, Digests]:
    began = time.perf_counter()
    digests = upload.put(FolderStorage(home), FolderStorage(home), artifact)
    return time.perf_counter() - began, digests


def digest_twice(path: Path) -> float:
    """Seconds to read a file once and to digest it twice: as one of the files and as part of the archive."""
    one, other = hashlib.sha256(), hashlib.sha256()
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            one.update(chunk)
            other.update(chunk)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
