"""Which waiting job starts where: one pure decision over machines, jobs and what is known of time.

Jobs are taken in one order. One that cannot start has devices kept for it, from when they are expected to be free; the
others may pass it where that does not delay it. So large jobs do not starve, and small ones fill what would be idle.
This is conservative backfill (Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime
Estimates in Scheduling the IBM SP2 with Backfilling", 2001), with a free time for each device instead of a profile.
"""

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import NamedTuple

SHARERS = 2
"""Jobs at once on a device, where all of them allow it. The plan keeps two times for each."""

_NAMED = 3
"""Machines and jobs that a sentence names; the others are counted."""


class Device(NamedTuple):
    worker: str
    number: int


@dataclass(frozen=True)
class Host:
    """A machine whose worker is alive and not draining."""

    name: str
    devices: int
    """Numbered 0..devices-1."""
    unit: str
    """What one is called in words for people: "GPU" or "CPU slot"."""
    busy: frozenset[int] = frozenset()
    """With processes of other programs: not given out."""


@dataclass(frozen=True)
class Waiting:
    id: str
    owner: str
    priority: int
    since: float
    """Epoch seconds."""
    nodes: int
    needs: Mapping[str, int]
    """Host name -> devices that it takes there: a machine without GPUs may take fewer."""
    usable: Mapping[str, frozenset[int]]
    """Host name -> numbers of the devices that can train it. Hosts that cannot are absent."""
    share: bool = False
    seconds: float | None = None
    """How long it is expected to run. None: nobody knows."""
    not_before: float | None = None


@dataclass(frozen=True)
class Occupant:
    """What holds devices: a running job, one placed and about to begin, or what is left of one whose processes are not
    gone."""

    id: str
    owner: str
    priority: int
    devices: tuple[Device, ...]
    share: bool = False
    preemptible: bool = False
    """And running, so that it can be preempted."""
    leaving: bool = False
    """It has been asked to stop: its devices will be free soon."""
    started: float = 0.0
    ends: float | None = None
    """Expected, epoch seconds. None: nobody knows."""


@dataclass(frozen=True)
class Wait:
    position: int
    """1 is the next one. One that is kept back after a failure has its position and holds nobody up."""
    reason: str
    """For people: a sentence that says what it waits for."""
    estimated_start: float | None
    """Epoch seconds; None where it cannot be known."""


@dataclass(frozen=True)
class Plan:
    starts: dict[str, tuple[Device, ...]]
    """Job -> devices to lease now, the head's machine first, all of one machine together."""
    preempt: tuple[str, ...]
    """Running jobs that shall save and go back to the queue."""
    waits: dict[str, Wait]
    """All other waiting jobs."""


def plan(
    now: float,
    hosts: Sequence[Host],
    waiting: Sequence[Waiting],
    occupants: Sequence[Occupant],
    most_running: Mapping[str, int] = MappingProxyType({}),
) -> Plan:
    """What to start and what to preempt at `now` (epoch seconds), and why the others wait. `most_running` is
    how many jobs may run at once, of the owners that have such a limit."""
    going = {occupant.id for occupant in occupants if occupant.leaving}
    machines = _machines(now, hosts, occupants, going)
    spared = _spared(occupants)
    in_use, running = Counter[str](), Counter[str]()
    for occupant in occupants:
        in_use[occupant.owner] += len(occupant.devices)
    for owner in {occupant.id: occupant.owner for occupant in occupants}.values():
        running[owner] += 1
    starts: dict[str, tuple[Device, ...]] = {}
    asked: list[str] = []
    waits: dict[str, Wait] = {}
    for job in _order(waiting, in_use):
        there = [machine.seen_by(job) for machine in machines if machine.host.name in job.usable]
        able = [seen for seen in there if len(seen.times) >= seen.needs]
        begins = None
        if job.not_before is not None and job.not_before > now:
            why = f"Starts again in {math.ceil(job.not_before - now)} s, after a failure."
        elif running[job.owner] >= most_running.get(job.owner, math.inf):
            count = running[job.owner]
            why = f"Its owner already runs {count} job{'s' * (count != 1)}, the most that may run at once."
        elif len(able) < job.nodes:
            why = _lack(job, there)
        elif chosen := _open(now, able, job):
            starts[job.id] = _give(now, chosen, job, going)
            in_use[job.owner] += len(starts[job.id])
            running[job.owner] += 1
            continue
        elif claim := _claim(able, job, spared, going):
            why, begins = _claimed(claim), now
            asked += sorted(claim.asked)
            going |= claim.asked
            in_use[job.owner] += _keep(now, claim.chosen, job)
        else:
            why = _kept(now, able, job) or _lack(job, there)
            time, chosen = _earliest(able, job)
            begins = None if time == math.inf else time
            in_use[job.owner] += _keep(time, chosen, job)
        waits[job.id] = Wait(len(waits) + 1, why, begins)
    return Plan(starts, tuple(asked), waits)


def _order(waiting: Sequence[Waiting], in_use: Mapping[str, int]) -> Iterator[Waiting]:
    """By priority, then the owner with the fewest devices in use, then age. Reads `in_use` anew after each job, for the
    owner of that job: the others' do not change meanwhile."""
    queues: dict[int, dict[str, deque[Waiting]]] = defaultdict(lambda: defaultdict(deque))
    for job in sorted(waiting, key=lambda job: (job.since, job.id)):
        queues[job.priority][job.owner].append(job)
    for _, owners in sorted(queues.items(), reverse=True):
        turns = [(in_use[owner], queue[0].since, queue[0].id, owner) for owner, queue in owners.items()]
        heapq.heapify(turns)
        while turns:
            owner = turns[0][-1]
            queue = owners[owner]
            yield queue.popleft()
            if queue:
                heapq.heapreplace(turns, (in_use[owner], queue[0].since, queue[0].id, owner))
            else:
                heapq.heappop(turns)


@dataclass(eq=False)
class _Slot:
    """A device while the plan is made."""

    at: Device
    users: list[Occupant]
    free: tuple[float, float] = (0.0, 0.0)
    """When the first and the second sharing job could have it, after all that is known; the second: also one alone."""
    kept_for: str = ""
    kept_from: float = math.inf
    """Who starts now on a device that is kept must end by then; -inf: none can."""

    def ready(self, share: bool, gone: Collection[str] = ()) -> bool:
        """Whether a job can have it now, or when all in `gone` have left."""
        users = [user for user in self.users if user.id not in gone] if gone else self.users
        return not users or (share and len(users) == 1 and users[0].share)

    def open(self, now: float, job: Waiting) -> bool:
        return not self.kept_for or (job.seconds is not None and now + job.seconds <= self.kept_from)

    def look_again(self, now: float, going: Collection[str]) -> None:
        ends = sorted(
            now if user.id in going else math.inf if user.ends is None else max(now, user.ends) for user in self.users
        )
        alone = not all(user.share for user in self.users)
        first, second = [now, now, *ends][-2:]
        self.free = (second if alone else first, second)

    def keep(self, begins: float, job: Waiting) -> None:
        # What passes an earlier job on this device is gone before this one could have it.
        if not self.kept_for or self.free[not job.share] < self.kept_from:
            self.kept_from = min(self.kept_from, -math.inf if begins == math.inf else begins)
        self.kept_for = self.kept_for or job.id
        ends = begins + (math.inf if job.seconds is None else job.seconds)
        self.free = (min(ends, self.free[1]), max(ends, self.free[1])) if job.share else (ends, ends)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A machine as a job sees it."""

    machine: "_Machine"
    name: str
    needs: int
    ready: list[_Slot]
    """What it could have now, were none kept: those that are not come first, and of these those that others use."""
    unused: int
    """Of all the machine's."""
    unkept: list[_Slot]
    times: list[tuple[float, bool, int]]
    """(when it could have the device, kept for another, number), the earliest first."""
    earliest: tuple[float, int, int, str]
    """(when it could have enough, how many of these are kept for others, how many are missing now, name)"""
    nearest: tuple[int, str]


@dataclass(eq=False)
class _Machine:
    """A host while the plan is made. What is seen is remembered until it changes: most jobs see the same."""

    host: Host
    slots: list[_Slot]
    _seen: dict[tuple[int, frozenset[int], bool], _Seen] = field(default_factory=dict)

    def seen_by(self, job: Waiting) -> _Seen:
        key = needs, usable, share = job.needs[self.host.name], job.usable[self.host.name], job.share
        if key not in self._seen:
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
            self._seen[key] = _Seen(self, self.host.name, needs, ready, unused, unkept, times, earliest, nearest)
        return self._seen[key]

    def look_again(self, now: float, going: Collection[str], slots: Sequence[_Slot]) -> None:
        for slot in slots:
            # What is kept has later times already.
            if not slot.kept_for:
                slot.look_again(now, going)
        self._seen.clear()

    def keep(self, begins: float, slots: list[_Slot], job: Waiting) -> None:
        before = [(slot.free, slot.kept_for) for slot in slots]
        for slot in slots:
            slot.keep(begins, job)
        if [(slot.free, slot.kept_for) for slot in slots] != before:
            self._seen.clear()


_Chosen = list[tuple[_Machine, list[_Slot]]]


def _machines(
    now: float, hosts: Sequence[Host], occupants: Sequence[Occupant], going: Collection[str]
) -> list[_Machine]:
    users: dict[Device, list[Occupant]] = defaultdict(list)
    for occupant in occupants:
        for device in occupant.devices:
            users[device].append(occupant)
    machines = []
    for host in sorted(hosts, key=lambda host: host.name):
        devices = [Device(host.name, number) for number in range(host.devices) if number not in host.busy]
        machines.append(_Machine(host, [_Slot(device, users[device]) for device in devices]))
        machines[-1].look_again(now, going, machines[-1].slots)
    return machines


def _open(now: float, able: list[_Seen], job: Waiting) -> _Chosen:
    """Devices for the whole job now, or none: the fewest of what is kept for others, then of what stands empty where it
    may share, on the machines with the fewest to spare, so that large jobs keep room."""
    offers = []
    for seen in able:
        if len(seen.ready) < seen.needs:
            continue
        taken = list(islice((slot for slot in seen.ready if slot.open(now, job)), seen.needs))
        if len(taken) < seen.needs:
            continue
        empty = sum(not slot.users for slot in taken)
        kept = sum(bool(slot.kept_for) for slot in taken)
        cost = (kept, empty if job.share else 0, seen.unused - empty, seen.name)
        offers.append((cost, seen.machine, taken))
    if len(offers) < job.nodes:
        return []
    return [(machine, taken) for _, machine, taken in heapq.nsmallest(job.nodes, offers, key=itemgetter(0))]


def _give(now: float, chosen: _Chosen, job: Waiting, going: Collection[str]) -> tuple[Device, ...]:
    devices = tuple(sorted(slot.at for slot in slots) for _, slots in chosen)
    flat = tuple(device for group in devices for device in group)
    ends = None if job.seconds is None else now + job.seconds
    starting = Occupant(job.id, job.owner, job.priority, flat, share=job.share, started=now, ends=ends)
    for machine, slots in chosen:
        for slot in slots:
            slot.users.append(starting)
        machine.look_again(now, going, slots)
    return flat


def _keep(begins: float, chosen: _Chosen, job: Waiting) -> int:
    for machine, slots in chosen:
        machine.keep(begins, slots, job)
    return sum(len(slots) for _, slots in chosen)


def _earliest(able: list[_Seen], job: Waiting) -> tuple[float, _Chosen]:
    """When the job could start, inf where nobody knows, and on which devices."""
    best = heapq.nsmallest(job.nodes, able, key=attrgetter("earliest"))
    chosen = []
    for seen in best:
        numbers = {number for _, _, number in seen.times[: seen.needs]}
        chosen.append((seen.machine, [slot for slot in seen.machine.slots if slot.at.number in numbers]))
    return best[-1].earliest[0], chosen


class _Claim(NamedTuple):
    chosen: _Chosen
    asked: frozenset[str]
    """Jobs to preempt for it."""
    going: frozenset[str]
    """Who has been asked to stop before, and is waited for."""


def _spared(occupants: Sequence[Occupant]) -> list[Occupant]:
    """Jobs that can be preempted. Those to spare come first: of a higher priority, then those longest at work."""
    preemptible = [occupant for occupant in occupants if occupant.preemptible]
    return sorted(preemptible, key=lambda occupant: (-occupant.priority, occupant.started, occupant.id))


def _claim(able: list[_Seen], job: Waiting, spared: list[Occupant], going: Collection[str]) -> _Claim | None:
    """Devices that the job will have as soon as others have left; None where asking them would not make room."""
    lower = [occupant for occupant in spared if occupant.priority < job.priority and occupant.id not in going]
    if not lower and not going:
        return None
    on = defaultdict(list)
    for occupant in lower:
        for worker in {device.worker for device in occupant.devices}:
            on[worker].append(occupant)
    offers = []
    for seen in able:
        asked = _fewest([seen], job, on[seen.name], going) if len(seen.unkept) >= seen.needs else None
        if asked is not None:
            highest = max((occupant.priority for occupant in asked), default=-math.inf)
            longest = min((occupant.started for occupant in asked), default=math.inf)
            offers.append(((highest, len(asked), -longest, seen.unused, seen.name), seen, asked))
    if len(offers) < job.nodes:
        return None
    best = heapq.nsmallest(job.nodes, offers, key=itemgetter(0))
    together = {occupant.id for _, _, asked in best for occupant in asked}
    # One of them may make room on several of the machines.
    asked = _fewest([seen for _, seen, _ in best], job, [each for each in lower if each.id in together], going) or []
    ids = frozenset(occupant.id for occupant in asked)
    chosen = [(seen.machine, _room(seen, job, ids.union(going))[: seen.needs]) for _, seen, _ in best]
    users = {user.id for _, slots in chosen for slot in slots for user in slot.users}
    return _Claim(chosen, ids, frozenset(users.intersection(going)))


def _fewest(
    machines: list[_Seen], job: Waiting, candidates: list[Occupant], going: Collection[str]
) -> list[Occupant] | None:
    """Those of the candidates without any of whom the job would not fit on every one of the machines, the first spared
    first; None where it would not fit without all of them."""

    def fits(asked: list[Occupant]) -> bool:
        gone = {occupant.id for occupant in asked}.union(going)
        return all(len(_room(seen, job, gone)) >= seen.needs for seen in machines)

    if not fits(candidates):
        return None
    asked = candidates
    for candidate in candidates:
        others = [occupant for occupant in asked if occupant is not candidate]
        if fits(others):
            asked = others
    return asked


def _room(seen: _Seen, job: Waiting, gone: Collection[str]) -> list[_Slot]:
    """What the job can have there when all in `gone` have left, what is free first."""
    room = [slot for slot in seen.unkept if slot.ready(job.share, gone)]
    return sorted(room, key=lambda slot: (sum(user.id in gone for user in slot.users), slot.at.number))


def _claimed(claim: _Claim) -> str:
    parts = [(claim.asked, "to save and make room"), (claim.going, "to stop")]
    return f"Waits for {' and for '.join(f'{_listed(sorted(ids), len(ids))} {what}' for ids, what in parts if ids)}."


def _kept(now: float, able: list[_Seen], job: Waiting) -> str | None:
    """Where enough is free, and kept for another."""
    enough = [seen for seen in able if len(seen.ready) >= seen.needs]
    if len(enough) < job.nodes:
        return None
    other = next(slot.kept_for for seen in enough for slot in seen.ready if not slot.open(now, job))
    return f"Waits for devices that are kept for {other}, which comes first."


def _lack(job: Waiting, there: list[_Seen]) -> str:
    if not there:
        return "Waits for a machine that can train it; none is there."
    if len(there) < job.nodes:
        found = f"{len(there)} {'is' if len(there) == 1 else 'are'} there"
        return f"Waits for {job.nodes} machines that can train it; {found}."
    sizes = sorted({(seen.needs, seen.machine.host.unit) for seen in there}, reverse=True)
    what = " or ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in sizes)
    if job.nodes > 1:
        free = sum(len(seen.ready) >= seen.needs for seen in there)
        found = f"{free or 'none'} {'have' if free > 1 else 'has'} them free"
        return f"Waits for {job.nodes} machines with {what} each; {found}."
    nearest = heapq.nsmallest(_NAMED, there, key=attrgetter("nearest"))
    return f"Waits for {what} on one machine: {_listed([_has(seen, job) for seen in nearest], len(there))}."


def _has(seen: _Seen, job: Waiting) -> str:
    usable = job.usable[seen.name]
    busy = len(usable & seen.machine.host.busy)
    words = f"{seen.name} has {len(seen.ready)} of {len(usable)} free"
    return f"{words} and {busy} busy with other programs" if busy else words


def _listed(names: list[str], count: int) -> str:
    """The first names; `count` is how many there are in all."""
    more = count - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
