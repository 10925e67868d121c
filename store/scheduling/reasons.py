"""Sentences that tell people why a job waits."""

import heapq
from collections.abc import Sequence
from operator import attrgetter

from store.scheduling.preemption import Claim
from store.scheduling.situation import Host, Waiting
from store.scheduling.slots import View

_NAMED = 3
"""Machines and jobs that a sentence names; the others are counted."""


def owner_at_limit(count: int) -> str:
    return f"The owner already runs {count} job{'s' * (count != 1)}, the most that may run at once."


def waits_for_others(claim: Claim) -> str:
    parts = [(claim.preempted, "to save and make room"), (claim.leaving, "to stop")]
    waits = [f"{_listed(sorted(ids), len(ids))} {what}" for ids, what in parts if ids]
    return f"The job waits for {' and for '.join(waits)}."


def kept_for_another(now: float, able: list[View], job: Waiting) -> str | None:
    """The sentence where enough devices are free but kept for another job, else None."""
    enough = [view for view in able if len(view.ready) >= view.needs]
    if len(enough) < job.nodes:
        return None
    other = next(slot.kept_for for view in enough for slot in view.ready if not slot.open(now, job))
    return f"The job waits for devices that are kept for {other}, which comes first."


def low_disk(job: Waiting, hosts: Sequence[Host]) -> str | None:
    """The sentence where machines could train the job if their disks had more room, else None."""
    low = {
        host.name: host.reserve_bytes for host in hosts if len(job.usable.get(host.name, ())) >= job.needs[host.name]
    }
    if not low:
        return None
    names, reserve = sorted(low), max(each or 0 for each in low.values())
    has = "has" if len(names) == 1 else "have"
    return f"The job waits for disk space: {_listed(names, len(names))} {has} less than {reserve / 1e9:.1f} GB free."


def too_few(job: Waiting, there: list[View]) -> str:
    if not there:
        return "The job waits for a machine that can train it; none is there."
    if len(there) < job.nodes:
        found = f"{len(there)} {'is' if len(there) == 1 else 'are'} there"
        return f"The job waits for {job.nodes} machines that can train it; {found}."
    sizes = sorted({(view.needs, view.machine.host.unit) for view in there}, reverse=True)
    what = " or ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in sizes)
    if job.nodes > 1:
        free = sum(len(view.ready) >= view.needs for view in there)
        found = f"{free or 'none'} {'have' if free > 1 else 'has'} them free"
        return f"The job waits for {job.nodes} machines with {what} each; {found}."
    nearest = heapq.nsmallest(_NAMED, there, key=attrgetter("nearest"))
    return f"The job waits for {what} on one machine: {_listed([_has(view, job) for view in nearest], len(there))}."


def _has(view: View, job: Waiting) -> str:
    usable = job.usable[view.name]
    busy = len(usable & view.machine.host.busy)
    words = f"{view.name} has {len(view.ready)} of {len(usable)} free"
    return f"{words} and {busy} busy or unavailable" if busy else words


def _listed(names: list[str], count: int) -> str:
    """The first names; `count` is how many there are in all."""
    more = count - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
