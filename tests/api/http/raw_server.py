"""Raw connections to a process of the API's server."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.servers import free_port
from tests.support.waiting import until

SHORT = {"head_seconds": 0.4, "body_seconds": 0.4, "body_bytes_per_second": 50, "idle_seconds": 1, "unread_seconds": 1}
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MIB = 1 << 20


class Server:
    def __init__(self, folder: Path, proxies: str, bounds: dict[str, Any]) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        arguments = [str(self.port), json.dumps({**SHORT, **bounds}), proxies]
        command = [sys.executable, "-m", "tests.api.http.bounded_server", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: "running on" in self.log.read_text() or self.process.poll() is not None)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, trust_env=False)

    def memory(self, what: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) << 10

    def clients(self) -> int:
        """Connections that are open."""
        return sum(
            each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(self.process.pid).net_connections()
        )


@contextmanager
def serving(folder: Path, proxies: str = "", **bounds: Any) -> Iterator[Server]:
    server = Server(folder, proxies, bounds)
    try:
        yield server
    finally:
        server.process.terminate()
        assert server.process.wait(20) in (0, -15)
        assert "Traceback" not in server.log.read_text()


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def answer(server: Server, *pieces: bytes) -> bytes:
    """What comes back until the server closes, or the client has sent all and is answered."""
    with server.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received(connection)


def refused(text: bytes, status: int) -> dict[str, Any]:
    assert text.startswith(f"HTTP/1.1 {status} ".encode()), text[:200]
    head, _, body = text.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"code", "message", "param", "type"}
    return error
