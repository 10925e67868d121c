"""Two machines on one: network namespaces with a cable between them. They share the files, and so Unix sockets too."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkMachine:
    name: str
    """Of its namespace."""
    address: str
    interface: str = "cable"

    def command(self, argv: Sequence[str]) -> list[str]:
        """Runs `argv` there, as the process that is started: no other stands between."""
        return ["ip", "netns", "exec", self.name, *argv]

    def unplug(self) -> None:
        """Puts it out of the other's reach. No connection is closed by that."""
        _ip("-n", self.name, "link", "set", self.interface, "down")

    def plug_in(self) -> None:
        _ip("-n", self.name, "link", "set", self.interface, "up")

    def processes(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]

    def kill_all(self) -> None:
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def two_machines() -> Iterator[tuple[NetworkMachine, NetworkMachine]]:
    """Kills what still runs on them at the end. Wants root and iproute2, and fails where there is none."""
    first, second = (NetworkMachine(f"finetuned-{os.getpid()}-{end}", f"10.77.0.{end}") for end in (1, 2))
    with ExitStack() as undo:
        for machine in (first, second):
            _ip("netns", "add", machine.name)
            undo.callback(_ip, "netns", "del", machine.name)
            undo.callback(machine.kill_all)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        ends = ["name", first.interface, "netns", first.name, "type", "veth"]
        _ip("link", "add", *ends, "peer", "name", second.interface, "netns", second.name)
        for machine in (first, second):
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", machine.interface)
            machine.plug_in()
        yield first, second


def _ip(*words: str) -> str:
    try:
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise AssertionError("tests of two machines want ip, of the package iproute2") from None
    except subprocess.CalledProcessError as error:
        said = f"ip {' '.join(words)}: {error.stderr.strip()}"
        raise AssertionError(f"tests of two machines want network namespaces, which root can make: {said}") from None
