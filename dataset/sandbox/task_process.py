"""Processes for tasks, forked by a server that has loaded their modules once."""

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import BinaryIO

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Environment variables that a task gets. The service's own settings are left out, since some are secret."""

_PIECE = 1 << 16
_FORK_SECONDS = 60.0
"""How long a server may take to load the modules and to fork."""


class TaskProcess:
    """One task's process. kill() may be called at any time until close()."""

    def __init__(self, connection: socket.socket, handle: int, errors: BinaryIO) -> None:
        self._connection = connection
        self._handle = handle
        self._errors = errors

    def communicate(self, request: bytes, seconds: float) -> bytes:
        """What the process writes until it ends. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        pieces: list[bytes] = []
        try:
            self._connection.settimeout(seconds)
            self._connection.sendall(request)
            self._connection.shutdown(socket.SHUT_WR)
            while piece := self._receive(deadline):
                pieces.append(piece)
        except ConnectionError:
            pass  # it ended before it had read everything
        return b"".join(pieces)

    def _receive(self, deadline: float) -> bytes:
        self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
        return self._connection.recv(_PIECE)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def errors(self) -> str:
        """The end of what it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode(errors="replace")

    def close(self) -> None:
        """Kills the process if it still runs, and returns when it is gone."""
        self.kill()
        select.select([self._handle], [], [])
        os.close(self._handle)
        self._connection.close()
        self._errors.close()


class ForkServer:
    """Starts with the first task, and again if something has killed it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def fork(self) -> TaskProcess:
        try:
            return self._fork()
        except ConnectionError:  # it was just being killed
            return self._fork()

    def _fork(self) -> TaskProcess:
        errors = open(os.memfd_create("errors"), "w+b")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                server = self._send(theirs, errors)
            ours.settimeout(_FORK_SECONDS)
            _, handles, _, _ = socket.recv_fds(ours, 1, 1)
            if not handles:
                self._forget(server)
                raise ConnectionError("the server of dataset tasks ended as it was to fork")
        except BaseException:
            ours.close()
            errors.close()
            raise
        return TaskProcess(ours, handles[0], errors)

    def _send(self, connection: socket.socket, errors: BinaryIO) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._server is None or self._requests is None or self._server.poll() is not None:
                self._stop()
                self._server, self._requests = _start()
            try:
                socket.send_fds(self._requests, [b"."], [connection.fileno(), errors.fileno()])
            except ConnectionError:
                self._stop()
                raise
            return self._server

    def _forget(self, server: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._server is server:
                self._stop()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._server is not None:
            self._server.wait()
        self._server = self._requests = None


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Each thread of the tokenizers library takes address space.
    environment |= {"RAYON_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2"}
    # There are none, and the search reads what each installed package says of itself: a tenth of the start.
    environment |= {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        # -P: the current directory may have a "dataset" too
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "dataset.sandbox.fork_server", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return server, ours


FORK_SERVER = ForkServer()
"""One for the whole process, since all tasks start alike."""
atexit.register(FORK_SERVER.stop)
