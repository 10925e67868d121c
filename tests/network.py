"""Two machines on one: network namespaces with a cable between them. They share the files, and so Unix sockets too."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NetworkMachine:
    name: str
    """Of its namespace."""
    interface: str
    address: str

    def command(self, argv: Sequence[str]) -> list[str]:
        """Runs `argv` there. ip becomes that program: the process is `argv`'s own."""
        return ["ip", "netns", "exec", self.name, *argv]

    def unplug(self) -> None:
        """The machine goes out of the other's reach; neither is told."""
        ip("-n", self.name, "link", "set", self.interface, "down")

    def plug_in(self) -> None:
        ip("-n", self.name, "link", "set", self.interface, "up")

    def processes(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]


@contextmanager
def two_machines() -> Iterator[tuple[NetworkMachine, NetworkMachine]]:
    """Wants root and iproute2; fails where there is none. Processes left in them live on: kill those first."""
    names = [f"finetuned-{os.getpid()}-{number}" for number in (1, 2)]
    machines = [NetworkMachine(name, "cable", f"10.77.0.{number}") for number, name in enumerate(names, start=1)]
    with ExitStack() as undo:
        for name in names:
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)  # its end of the cable goes with it, and so the other
        first, second = machines
        ends = ["name", first.interface, "netns", first.name, "type", "veth", "peer", "name", second.interface]
        ip("link", "add", *ends, "netns", second.name)
        for machine in machines:
            ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            ip("-n", machine.name, "link", "set", machine.interface, "up")
            ip("-n", machine.name, "link", "set", "lo", "up")
        yield first, second


def ip(*words: str) -> str:
    result = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert result.returncode == 0, (
        f"tests of two machines want root and iproute2: ip {' '.join(words)}: {result.stderr}"
    )
    return result.stdout
