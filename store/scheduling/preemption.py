"""Which running jobs to preempt, so that a job of a higher priority can start."""

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import NamedTuple

from store.scheduling.situation import Occupant, Waiting
from store.scheduling.slots import Chosen, Slot, View


class Claim(NamedTuple):
    """Devices that a job will have once others have left."""

    chosen: Chosen
    preempted: frozenset[str]
    """Jobs that are to be preempted for it."""
    leaving: frozenset[str]
    """Jobs on these devices that are already stopping."""


def preemptible_jobs(occupants: Sequence[Occupant]) -> list[Occupant]:
    """Jobs that may be preempted. Those to spare come first: of a higher priority, then those that run longest."""
    preemptible = [occupant for occupant in occupants if occupant.preemptible]
    return sorted(preemptible, key=lambda occupant: (-occupant.priority, occupant.started, occupant.id))


def claim_devices(
    able: list[View], job: Waiting, preemptible: list[Occupant], leaving: Collection[str]
) -> Claim | None:
    """Devices that the job will have once others have left, or None where preemption would not make room."""
    lower = [occupant for occupant in preemptible if occupant.priority < job.priority and occupant.id not in leaving]
    if not lower and not leaving:
        return None
    on = defaultdict(list)
    for occupant in lower:
        for worker in {device.worker for device in occupant.devices}:
            on[worker].append(occupant)
    offers = []
    for view in able:
        chosen = _fewest([view], job, on[view.name], leaving) if len(view.unkept) >= view.needs else None
        if chosen is not None:
            highest = max((occupant.priority for occupant in chosen), default=-math.inf)
            longest = min((occupant.started for occupant in chosen), default=math.inf)
            offers.append(((highest, len(chosen), -longest, view.unused, view.name), view, chosen))
    if len(offers) < job.nodes:
        return None
    best = heapq.nsmallest(job.nodes, offers, key=itemgetter(0))
    together = {occupant.id for _, _, chosen in best for occupant in chosen}
    # One of them may make room on several of the machines.
    fewest = _fewest([view for _, view, _ in best], job, [each for each in lower if each.id in together], leaving) or []
    ids = frozenset(occupant.id for occupant in fewest)
    slots = [(view.machine, _room(view, job, ids.union(leaving))[: view.needs]) for _, view, _ in best]
    users = {user.id for _, taken in slots for slot in taken for user in slot.users}
    return Claim(slots, ids, frozenset(users.intersection(leaving)))


def _fewest(
    machines: list[View], job: Waiting, candidates: list[Occupant], leaving: Collection[str]
) -> list[Occupant] | None:
    """A minimal set of candidates whose devices make the job fit on every one of the machines, leaving out the first
    ones where possible; None where all candidates together would not do."""

    def fits(preempted: list[Occupant]) -> bool:
        gone = {occupant.id for occupant in preempted}.union(leaving)
        return all(len(_room(view, job, gone)) >= view.needs for view in machines)

    if not fits(candidates):
        return None
    chosen = candidates
    for candidate in candidates:
        others = [occupant for occupant in chosen if occupant is not candidate]
        if fits(others):
            chosen = others
    return chosen


def _room(view: View, job: Waiting, gone: Collection[str]) -> list[Slot]:
    """The slots that the job could use once all in `gone` have left, free ones first."""
    room = [slot for slot in view.unkept if slot.ready(job.share, gone)]
    return sorted(room, key=lambda slot: (sum(user.id in gone for user in slot.users), slot.at.number))
