"""Decides which waiting job starts where: a pure function of machines, jobs and expected times.

Jobs are taken in one order. A job that cannot start has devices kept for it from when they are expected to be free;
others may pass it where that does not delay it. So large jobs do not starve, and small ones fill what would be idle.
This is conservative backfill (Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime
Estimates in Scheduling the IBM SP2 with Backfilling", 2001), with a free time for each device instead of a profile.
"""

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter, itemgetter
from types import MappingProxyType

from store.scheduling import reasons
from store.scheduling.preemption import claim_devices, preemptible_jobs
from store.scheduling.situation import DeviceRef, Host, Occupant, SchedulePlan, Wait, Waiting
from store.scheduling.slots import Chosen, View, make_machines


def plan(
    now: float,
    hosts: Sequence[Host],
    waiting: Sequence[Waiting],
    occupants: Sequence[Occupant],
    most_running: Mapping[str, int] = MappingProxyType({}),
) -> SchedulePlan:
    """Decides what to start and what to preempt at `now`, and says why the others wait. `most_running` is how many jobs
    may run at once, for the owners that have such a limit."""
    leaving = {occupant.id for occupant in occupants if occupant.leaving}
    low = [host for host in hosts if host.reserve_bytes is not None]
    machines = make_machines(now, [host for host in hosts if host not in low], occupants, leaving)
    preemptible = preemptible_jobs(occupants)
    in_use, running = _count(occupants)
    starts: dict[str, tuple[DeviceRef, ...]] = {}
    preempted: list[str] = []
    claimed: set[DeviceRef] = set()
    waits: dict[str, Wait] = {}
    for job in _order(waiting, in_use):
        there = [machine.view_for(job) for machine in machines if machine.host.name in job.usable]
        able = [view for view in there if len(view.times) >= view.needs]
        begins = None
        if job.not_before is not None and job.not_before > now:
            reason = reasons.after_failure(job.not_before - now)
        elif running[job.owner] >= most_running.get(job.owner, math.inf):
            reason = reasons.owner_at_limit(running[job.owner])
        elif len(able) < job.nodes:
            reason = reasons.low_disk(job, low) or reasons.too_few(job, there)
        elif chosen := _open(now, able, job):
            starts[job.id] = _start(now, chosen, job, leaving)
            in_use[job.owner] += len(starts[job.id])
            running[job.owner] += 1
            continue
        elif claim := claim_devices(able, job, preemptible, leaving):
            reason, begins = reasons.waits_for_others(claim), now
            preempted += sorted(claim.preempted)
            leaving |= claim.preempted
            claimed.update(slot.at for _, slots in claim.chosen for slot in slots)
            in_use[job.owner] += _keep(now, claim.chosen, job)
        else:
            reason = reasons.kept_for_another(now, able, job) or reasons.too_few(job, there)
            time, chosen = _earliest(able, job)
            begins = None if time == math.inf else time
            in_use[job.owner] += _keep(time, chosen, job)
        waits[job.id] = reason.wait(len(waits) + 1, begins)
    return SchedulePlan(starts, tuple(preempted), waits, frozenset(claimed))


def _count(occupants: Sequence[Occupant]) -> tuple[Counter[str], Counter[str]]:
    """The number of devices that each owner uses, and of jobs that it runs."""
    in_use, running = Counter[str](), Counter[str]()
    for occupant in occupants:
        in_use[occupant.owner] += len(occupant.devices)
    for owner in {occupant.id: occupant.owner for occupant in occupants}.values():
        running[owner] += 1
    return in_use, running


def _order(waiting: Sequence[Waiting], in_use: Mapping[str, int]) -> Iterator[Waiting]:
    """By priority, then the owner with the fewest devices in use, then age. After each job it reads `in_use` again for
    the owner of that job; those of the others have not changed."""
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


def _open(now: float, able: list[View], job: Waiting) -> Chosen:
    """Devices for the whole job now, or none. Takes the fewest that are kept for others, then the fewest unused ones if
    the job may share, on the machines with the fewest to spare, so that large jobs keep room."""
    offers = []
    for view in able:
        if len(view.ready) < view.needs:
            continue
        taken = list(islice((slot for slot in view.ready if slot.open(now, job)), view.needs))
        if len(taken) < view.needs:
            continue
        empty = sum(not slot.users for slot in taken)
        kept = sum(bool(slot.kept_for) for slot in taken)
        cost = (kept, empty if job.share else 0, view.unused - empty, view.name)
        offers.append((cost, view.machine, taken))
    if len(offers) < job.nodes:
        return []
    return [(machine, taken) for _, machine, taken in heapq.nsmallest(job.nodes, offers, key=itemgetter(0))]


def _start(now: float, chosen: Chosen, job: Waiting, leaving: Collection[str]) -> tuple[DeviceRef, ...]:
    """Puts the job on the chosen devices."""
    devices = tuple(sorted(slot.at for slot in slots) for _, slots in chosen)
    flat = tuple(device for group in devices for device in group)
    ends = None if job.seconds is None else now + job.seconds
    starting = Occupant(job.id, job.owner, job.priority, flat, share=job.share, started=now, ends=ends)
    for machine, slots in chosen:
        for slot in slots:
            slot.users.append(starting)
        machine.refresh(now, leaving, slots)
    return flat


def _keep(begins: float, chosen: Chosen, job: Waiting) -> int:
    """Keeps the chosen devices for the job, and returns their number."""
    for machine, slots in chosen:
        machine.keep(begins, slots, job)
    return sum(len(slots) for _, slots in chosen)


def _earliest(able: list[View], job: Waiting) -> tuple[float, Chosen]:
    """When the job is expected to start, inf if unknown, and on which devices."""
    best = heapq.nsmallest(job.nodes, able, key=attrgetter("earliest"))
    chosen = []
    for view in best:
        numbers = {number for _, _, number in view.times[: view.needs]}
        chosen.append((view.machine, [slot for slot in view.machine.slots if slot.at.number in numbers]))
    return best[-1].earliest[0], chosen
