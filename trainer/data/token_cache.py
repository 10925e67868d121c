"""A folder of tokenised datasets, one file per source, so that each is tokenised once.

Safe for any number of processes, also if several machines share the folder: a file is complete or absent.
"""

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainer.data.tokens import Tokens
from trainer.durable import sync

MAX_BYTES = 10 << 30
"""Maximum size of all files together. The newest file is kept even if it alone is larger."""
_DAY = 24 * 60 * 60
_NAMES = {field.name for field in dataclasses.fields(Tokens)}


def cached_tokens(folder: Path, key: str, make: Callable[[], Tokens], most_bytes: int = MAX_BYTES) -> Tokens:
    """The result of the first call of `make` for this key, which is 64 hex digits. Of several processes, one calls it
    and the others wait; if it dies or fails, another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.safetensors"
    tokens = _read(path, key)
    if tokens is not None:
        return tokens
    with _locked(folder / f"lock-{key[:2]}"):
        tokens = _read(path, key)
        if tokens is None:
            tokens = make()
            _write(tokens, path, key)
            _drop_least_recently_used(folder, most_bytes, keep=path)
    return tokens


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock ends with the process that holds it. Its file stays for the next lock. There are at most 256, and
    datasets that share one only wait for each other."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path, key: str) -> Tokens | None:
    """The file's tokens, or None if it does not exist or differs from what was written for this key. Marks it as used
    now. The tensors are mapped, so the processes of a machine share their memory, even after the file is deleted."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    if tensors.keys() != _NAMES:
        return None
    tokens = Tokens(**tensors)
    if (metadata.get("key"), metadata.get("sha256")) != (key, tokens.digest):
        return None
    # Another process may just have deleted it.
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
    return tokens


def _write(tokens: Tokens, path: Path, key: str) -> None:
    tensors = {name: getattr(tokens, name) for name in _NAMES}
    beside = path.with_suffix(".partial")
    try:
        save_file(tensors, beside, metadata={"key": key, "sha256": tokens.digest})
        sync(beside)
        beside.rename(path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _drop_least_recently_used(folder: Path, most_bytes: int, keep: Path) -> None:
    """Deletes the oldest files beyond the limit, and files that killed processes left half-written."""
    files = []
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.partial")]:
        # Other processes may do the same at the same time.
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for used, size, path in sorted(files, reverse=True):
        total += size
        is_abandoned = path.suffix == ".partial" and time.time() - used > _DAY
        is_too_much = path.suffix != ".partial" and total > most_bytes and path != keep
        if is_abandoned or is_too_much:
            path.unlink(missing_ok=True)
