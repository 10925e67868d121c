import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from storage.backends import FolderStorage
from storage.cache import acquire

DAY = 24 * 60 * 60
ROOT = Path(__file__).parents[2]


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    """With three blobs of 100 bytes each. That they lie in a folder, and no bucket, makes no difference here."""
    for name in "abc":
        path = tmp_path / "storage" / "blobs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return FolderStorage(tmp_path / "storage")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(storage: FolderStorage, cache: Path, name: str, most_bytes: int = 10**9) -> bytes:
    with acquire(storage, f"blobs/{name}", cache / name, most_bytes=most_bytes) as path:
        return path.read_bytes()


def copies(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.startswith("lock-")}


def used_ago(copy: Path, seconds: float) -> None:
    os.utime(copy, times=(time.time() - seconds,) * 2)


def test_fetched_copy_is_not_fetched_again(storage: FolderStorage, cache: Path) -> None:
    assert read(storage, cache, "a") == b"a" * 100
    storage.delete("blobs/a")
    assert read(storage, cache, "a") == b"a" * 100


def test_fetched_copy_waits_for_no_other_fetch(storage: FolderStorage, cache: Path) -> None:
    read(storage, cache, "a")

    def waits() -> None:
        raise AssertionError("it waits for the process that fetches")

    with (cache / "lock-a").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with acquire(storage, "blobs/a", cache / "a", heartbeat=waits) as path:
            assert path.read_bytes() == b"a" * 100


def test_failed_fetch_leaves_nothing(storage: FolderStorage, cache: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(storage, cache, "none")
    assert copies(cache) == set()


def test_least_recently_used_copies_are_evicted(storage: FolderStorage, cache: Path) -> None:
    for name in "ab":
        read(storage, cache, name)
        used_ago(cache / name, 60)
    read(storage, cache, "a")
    read(storage, cache, "c", most_bytes=200)
    assert copies(cache) == {"a", "c"}


def test_oversized_copy_stays_until_the_next(storage: FolderStorage, cache: Path) -> None:
    assert read(storage, cache, "a", most_bytes=1) == b"a" * 100
    assert copies(cache) == {"a"}
    read(storage, cache, "b", most_bytes=1)
    assert copies(cache) == {"b"}


def test_copy_in_use_stays_until_released(storage: FolderStorage, cache: Path) -> None:
    with ExitStack() as another:
        another.enter_context(acquire(storage, "blobs/a", cache / "a"))
        with acquire(storage, "blobs/a", cache / "a") as path:
            pass
        read(storage, cache, "b", most_bytes=1)
        assert path.read_bytes() == b"a" * 100
    read(storage, cache, "c", most_bytes=1)
    assert copies(cache) == {"c"}


def test_copy_that_a_killed_process_read_may_go(storage: FolderStorage, cache: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from storage.cache import acquire\n"
        "from storage.backends import FolderStorage\n"
        "storage, copy = FolderStorage(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "with acquire(storage, 'blobs/a', copy):\n"
        "    print('reads', flush=True); time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", code, str(storage.local_path("blobs").parent), str(cache / "a")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
        read(storage, cache, "b", most_bytes=1)
        assert "a" in copies(cache)
        reader.kill()
    read(storage, cache, "c", most_bytes=1)
    assert copies(cache) == {"c"}


def test_one_of_two_readers_fetches(storage: FolderStorage, cache: Path) -> None:
    """The second waits, and says so: it could not fetch what is deleted meanwhile."""
    waits = threading.Event()
    found: list[bytes] = []

    def second() -> None:
        with acquire(storage, "blobs/a", cache / "a", waits.set) as path:
            found.append(path.read_bytes())

    thread = threading.Thread(target=second)

    def while_it_is_fetched() -> None:
        thread.start()
        assert waits.wait(30)
        storage.delete("blobs/a")

    with acquire(storage, "blobs/a", cache / "a", while_it_is_fetched):
        thread.join(30)
    assert found == [b"a" * 100]


def test_abandoned_fetch_is_removed_after_a_day(storage: FolderStorage, cache: Path) -> None:
    cache.mkdir()
    for name, seconds in (("old", 2 * DAY), ("new", 0)):
        (cache / f".{name}.partial").touch()
        used_ago(cache / f".{name}.partial", seconds)
    read(storage, cache, "a")
    assert copies(cache) == {".new.partial", "a"}
