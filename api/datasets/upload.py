"""A file that is being uploaded: written and hashed while it is read, never whole in memory."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from api.errors import TooLarge

_AT_ONCE = 1 << 20
_ABANDONED = 24 * 60 * 60


class Incoming:
    """It lies in the home folder, so that it can be renamed into place without a copy."""

    def __init__(self, folder: Path, largest: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{os.urandom(12).hex()}.partial"
        self.bytes = 0
        self._largest = largest
        self._sha256 = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, "sha256")
        self._file = self.path.open("xb", buffering=0)

    def write(self, data: bytes | memoryview) -> None:
        """Raises TooLarge, OSError."""
        self.bytes += len(data)
        if self.bytes > self._largest:
            raise TooLarge(self._largest)
        # Beside the writing: on two cores both take the time of the slower.
        hashed = self._hashing.submit(self._sha256.update, data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        hashed.result()

    def finish(self) -> str:
        """Its SHA-256 as lower-case hex, once it is on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()
        return self._sha256.hexdigest()

    def discard(self) -> None:
        self._hashing.shutdown()
        self._file.close()
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def incoming(folder: Path, largest: int) -> Iterator[Incoming]:
    """Deletes the file at the end, unless it was renamed."""
    file = Incoming(folder, largest)
    try:
        yield file
    finally:
        file.discard()


def forget_abandoned(folder: Path) -> None:
    """Deletes what killed processes have left."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


async def pump(stream: AsyncIterator[bytes], take: Callable[[bytes], None]) -> None:
    """Passes the stream to `take` in larger pieces, in a thread, and reads on meanwhile: hashing and writing delay
    neither other requests nor the sender. At most two of these pieces are in memory."""
    pieces: list[bytes] = []
    size = 0
    taking: asyncio.Task[None] | None = None
    try:
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size >= _AT_ONCE:
                if taking is not None:
                    await taking
                taking = asyncio.create_task(run_in_threadpool(take, b"".join(pieces)))
                pieces.clear()
                size = 0
        if taking is not None:
            await taking
            taking = None
        await run_in_threadpool(take, b"".join(pieces))
    finally:
        if taking is not None:  # the stream has broken off: the thread still has the file
            await asyncio.wait([taking])
            if not taking.cancelled():
                taking.exception()
