"""The devices while a plan is made: who uses each, for whom it is kept, and when it will be free.

A View is what a job sees of a machine. It is cached until the machine changes, because most of 10,000 waiting jobs see
the same; benchmarks/claims.py promises 500 claims a second with that many and 1,024 devices, which needs the cache.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from store.scheduling.situation import DeviceRef, Host, Occupant, Waiting


@dataclass(eq=False)
class Slot:
    """A device while a plan is made."""

    at: DeviceRef
    users: list[Occupant]
    free: tuple[float, float] = (0.0, 0.0)
    """Expected times at which a first and a second sharing job could have it; one that does not share needs both."""
    kept_for: str = ""
    """The id of the first job that it is kept for."""
    kept_from: float = math.inf
    """A job that starts now on a kept device must end by then; with -inf none can start."""

    def ready(self, share: bool, gone: Collection[str] = ()) -> bool:
        """Whether a job could use it now, or once all in `gone` have left."""
        users = [user for user in self.users if user.id not in gone] if gone else self.users
        return not users or (share and len(users) == 1 and users[0].share)

    def open(self, now: float, job: Waiting) -> bool:
        """Whether the job may start on it without delaying the job it is kept for."""
        return not self.kept_for or (job.seconds is not None and now + job.seconds <= self.kept_from)

    def refresh(self, now: float, leaving: Collection[str]) -> None:
        ends = sorted(
            now if user.id in leaving else math.inf if user.ends is None else max(now, user.ends) for user in self.users
        )
        alone = not all(user.share for user in self.users)
        first, second = [now, now, *ends][-2:]
        self.free = (second if alone else first, second)

    def keep(self, begins: float, job: Waiting) -> None:
        # A job that passes an earlier one on this device has ended before that one could use it.
        if not self.kept_for or self.free[not job.share] < self.kept_from:
            self.kept_from = min(self.kept_from, -math.inf if begins == math.inf else begins)
        self.kept_for = self.kept_for or job.id
        ends = begins + (math.inf if job.seconds is None else job.seconds)
        self.free = (min(ends, self.free[1]), max(ends, self.free[1])) if job.share else (ends, ends)


@dataclass(frozen=True, eq=False)
class View:
    """A machine as a job sees it."""

    machine: "MachineState"
    name: str
    needs: int
    ready: list[Slot]
    """Slots that it could use now: those kept for nobody first, and among these those in use by a sharing job."""
    unused: int
    """Number of all slots of the machine without users."""
    unkept: list[Slot]
    """Slots that are kept for nobody."""
    times: list[tuple[float, bool, int]]
    """For each slot when the job could use it, whether it is kept for another, and its number; earliest first."""
    earliest: tuple[float, int, int, str]
    """When enough are free, how many of them are kept for others, how many are missing now, and the name."""
    nearest: tuple[int, str]
    """Sorts the machine with the most ready slots first."""


@dataclass(eq=False)
class MachineState:
    """A host while a plan is made, with a cache of its views."""

    host: Host
    slots: list[Slot]
    _views: dict[tuple[int, frozenset[int], bool], View] = field(default_factory=dict)

    def view_for(self, job: Waiting) -> View:
        key = needs, usable, share = job.needs[self.host.name], job.usable[self.host.name], job.share
        if key not in self._views:
            slots = [slot for slot in self.slots if slot.at.number in usable]
            ready = [slot for slot in slots if slot.ready(share)]
            ready.sort(key=lambda slot: (bool(slot.kept_for), not slot.users, slot.at.number))
            unused = sum(not slot.users for slot in self.slots)
            unkept = [slot for slot in slots if not slot.kept_for]
            times = sorted((slot.free[not share], bool(slot.kept_for), slot.at.number) for slot in slots)
            begins = times[needs - 1][0] if len(times) >= needs else math.inf
            kept = sum(kept for _, kept, _ in times[:needs])
            earliest = (begins, kept, max(0, needs - len(ready)), self.host.name)
            nearest = (-len(ready), self.host.name)
            self._views[key] = View(self, self.host.name, needs, ready, unused, unkept, times, earliest, nearest)
        return self._views[key]

    def refresh(self, now: float, leaving: Collection[str], slots: Sequence[Slot]) -> None:
        """Updates the times of slots whose users have changed."""
        for slot in slots:
            # A kept slot has later times already.
            if not slot.kept_for:
                slot.refresh(now, leaving)
        self._views.clear()

    def keep(self, begins: float, slots: list[Slot], job: Waiting) -> None:
        """Keeps slots for a job from `begins` on."""
        before = [(slot.free, slot.kept_for) for slot in slots]
        for slot in slots:
            slot.keep(begins, job)
        if [(slot.free, slot.kept_for) for slot in slots] != before:
            self._views.clear()


Chosen = list[tuple[MachineState, list[Slot]]]
"""Slots for one job, by machine."""


def make_machines(
    now: float, hosts: Sequence[Host], occupants: Sequence[Occupant], leaving: Collection[str]
) -> list[MachineState]:
    users: dict[DeviceRef, list[Occupant]] = defaultdict(list)
    for occupant in occupants:
        for device in occupant.devices:
            users[device].append(occupant)
    machines = []
    for host in sorted(hosts, key=lambda host: host.name):
        devices = [DeviceRef(host.name, number) for number in range(host.devices) if number not in host.busy]
        machines.append(MachineState(host, [Slot(device, users[device]) for device in devices]))
        machines[-1].refresh(now, leaving, machines[-1].slots)
    return machines
