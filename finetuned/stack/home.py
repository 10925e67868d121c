"""The home folder: whose it is, and who may enter it."""

import fcntl
import os
import re
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
    """Nobody else can list or enter what we make, whatever the umask. But what is `on_the_way` to the database's data,
    as are all folders above, its user must be able to enter, where that is not us.

    Those that were there are not ours to change. Raises StackError.
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
    """Also those that an earlier release has left open. Raises StackError."""
    for folder in folders:
        try:
            folder.chmod(0o700)
        except OSError as error:
            raise StackError(f"cannot close {folder} to other users of the machine: {error.strerror}") from error


def socket_folder(folder: Path, socket: str) -> Path:
    """An empty folder of ours alone for a Unix socket of that name: `folder`/run.

    A path that is too long for a socket, or has characters that would need quotes in settings and URLs, gives way to
    one in the temporary folder, for drop_socket_folder.
    """
    sockets = folder / "run"
    if len(os.fsencode(sockets / socket)) > _LONGEST_SOCKET or not _PLAIN.fullmatch(str(sockets)):
        return Path(tempfile.mkdtemp(prefix=_PREFIX))
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700)
    return sockets


def drop_socket_folder(sockets: Path) -> None:
    """Removes it where it is in the temporary folder."""
    if sockets.name.startswith(_PREFIX):
        shutil.rmtree(sockets, ignore_errors=True)


@contextmanager
def hold(home: Path) -> Iterator[None]:
    """Holds the home for one stack. Raises StackError when another has it."""
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
