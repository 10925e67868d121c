"""The home folder: its lock, and the permissions of the folders in it."""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from finetuned.stack.process import StackError

_LONGEST_SOCKET = 107  # bytes of a path in sockaddr_un
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
_PREFIX = "finetuned-run-"


def make_folder(folder: Path, on_the_way: bool = False) -> None:
    """Creates a folder and its missing parents, closed to other users whatever the umask.

    Root's PostgreSQL runs as another user, who must be able to pass through the parents, and through `folder` itself if
    it is `on_the_way` to the data. Folders that exist keep their mode. Raises StackError.
    """
    entered = 0o711 if os.geteuid() == 0 else 0o700
    try:
        for each in reversed([folder, *folder.parents]):
            if not each.exists():
                each.mkdir(exist_ok=True)
                each.chmod(entered if on_the_way or each != folder else 0o700)
    except OSError as error:
        raise StackError(f"cannot make the folder {folder}: {error.strerror}; set FINETUNED_HOME to another") from error


def close_to_others(folders: Iterable[Path]) -> None:
    """Closes folders to other users, in case somebody has opened them. Raises StackError."""
    for folder in folders:
        try:
            folder.chmod(0o700)
        except OSError as error:
            raise StackError(f"cannot close {folder} to other users of the machine: {error.strerror}") from error


def make_key(file: Path) -> None:
    """Writes a random key that only this user can read, unless there is one. Raises StackError."""
    if file.exists():
        return
    beside = file.with_name(f".{file.name}.partial")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secrets.token_hex(32))
            opened.flush()
            os.fsync(opened.fileno())
        beside.rename(file)
    except OSError as error:
        raise StackError(f"cannot write the key {file}: {error.strerror}") from error


def socket_folder(folder: Path, socket: str) -> Path:
    """An empty private folder for the Unix socket `socket`: `folder`/run.

    It is in the temporary folder instead if the path is too long for a socket, or has characters that settings and URLs
    would have to quote; `drop_socket_folder` removes it from there.
    """
    sockets = folder / "run"
    if len(os.fsencode(sockets / socket)) > _LONGEST_SOCKET or not _PLAIN.fullmatch(str(sockets)):
        return Path(tempfile.mkdtemp(prefix=_PREFIX))
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700)
    return sockets


def drop_socket_folder(sockets: Path) -> None:
    """Removes the folder of `socket_folder` if it is in the temporary folder."""
    if sockets.name.startswith(_PREFIX):
        shutil.rmtree(sockets, ignore_errors=True)


@contextmanager
def hold(home: Path) -> Iterator[None]:
    """Locks the home folder for one stack. Raises StackError when another stack has it."""
    try:
        lock = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StackError(f"cannot write to {home}: {error.strerror}; set FINETUNED_HOME to another folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode() or "unknown"
            raise StackError(
                f"another finetuned, process {owner}, is running on {home}; stop it, or set another FINETUNED_HOME"
            ) from None
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def holder(home: Path) -> int | None:
    """The process of the stack that has the home folder; None if none runs."""
    try:
        lock = os.open(home / "stack.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(lock, 20) or 0) or None
    finally:
        os.close(lock)
    return None
