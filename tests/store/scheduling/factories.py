"""Machines, jobs that wait and jobs that run, in few words."""

from collections.abc import Iterable

from store.scheduling.situation import DeviceRef, Host, Occupant, SchedulePlan, Wait, Waiting

NOW = 1000.0


def machine(name: str, devices: int = 4, busy: Iterable[int] = ()) -> Host:
    return Host(name, devices, "GPU", frozenset(busy))


A, B = machine("a"), machine("b")


def job(
    id: str,
    *hosts: Host,
    gpus: int = 1,
    nodes: int = 1,
    owner: str = "ann",
    priority: int = 0,
    since: float = 0,
    share: bool = False,
    seconds: float | None = None,
    not_before: float | None = None,
) -> Waiting:
    hosts = hosts or (A, B)
    needs = {host.name: gpus for host in hosts}
    usable = {host.name: frozenset(range(host.devices)) for host in hosts}
    return Waiting(id, owner, priority, since, nodes, needs, usable, share, seconds, not_before)


def running(
    id: str,
    *devices: str,
    owner: str = "ann",
    priority: int = 0,
    share: bool = False,
    preemptible: bool = False,
    leaving: bool = False,
    started: float = 0,
    ends: float | None = None,
) -> Occupant:
    return Occupant(id, owner, priority, on(*devices), share, preemptible, leaving, started, ends)


def on(*devices: str) -> tuple[DeviceRef, ...]:
    """ "a0" is the device 0 of the machine a."""
    return tuple(DeviceRef(device[0], int(device[1:])) for device in devices)


def full(host: Host, **words: object) -> Occupant:
    devices = [f"{host.name}{number}" for number in range(host.devices)]
    return running(f"all-of-{host.name}", *devices, **words)  # type: ignore[arg-type]


def waits(made: SchedulePlan, id: str) -> Wait:
    assert not made.starts.keys() & made.waits.keys()
    return made.waits[id]
