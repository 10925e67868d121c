"""A folder of tokenised datasets, each in a file named by what it was made of, so that it is made once.

Safe for any number of processes, on one machine or with the folder shared: a file is whole or absent.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainer.data.tokens import Tokens
from trainer.durable import sync

MOST_BYTES = 10 << 30
"""Of all files together, but for the one that has just been made, which may be larger by itself."""
_DAY = 24 * 60 * 60
_NAMES = {field.name for field in dataclasses.fields(Tokens)}


def cached(folder: Path, key: str, make: Callable[[], Tokens], most_bytes: int = MOST_BYTES) -> Tokens:
    """What `make` returned when it was first called for this key, 64 hex digits. Of several processes that need it one
    makes it, and the others wait; when it dies or fails, another does."""
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
    """The lock goes with the process that holds it. Its file stays, to be locked again: there are 256 at most, and
    datasets that share one wait for each other in vain, which is all."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path, key: str) -> Tokens | None:
    """None where there is no such file, and for one that is not to the last bit what was written for this key. Marks it
    as used now. The tensors are mapped: the processes of a machine share their memory, also after the file is gone."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    if tensors.keys() != _NAMES or (metadata.get("key"), metadata.get("sha256")) != (key, _digest(tensors)):
        return None
    # Another process may just have dropped it.
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
    return Tokens(**tensors)


def _write(tokens: Tokens, path: Path, key: str) -> None:
    tensors = {name: getattr(tokens, name) for name in _NAMES}
    beside = path.with_suffix(".partial")
    try:
        save_file(tensors, beside, metadata={"key": key, "sha256": _digest(tensors)})
        sync(beside)
        beside.rename(path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        sha256.update(tensor.flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()


def _drop_least_recently_used(folder: Path, most_bytes: int, keep: Path) -> None:
    """And what processes have left that were killed while they wrote."""
    files = []
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.partial")]:
        # Others do the same at the same time.
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for used, size, path in sorted(files, reverse=True):
        total += size
        is_abandoned = path.suffix == ".partial" and time.time() - used > _DAY
        is_too_much = path.suffix != ".partial" and total > most_bytes and path != keep
        if is_abandoned or is_too_much:
            path.unlink(missing_ok=True)
