"""Sentences that tell people why a job waits, each with a code and its values for programs and other languages."""

import heapq
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from contract import ids
from store.scheduling.preemption import Claim
from store.scheduling.situation import Host, Wait, Waiting
from store.scheduling.slots import View

CODES = (
    "starts_now",
    "many_before",
    "after_failure",
    "owner_at_limit",
    "preempts",
    "waits_for_stopping",
    "preempts_and_waits",
    "kept_for_another",
    "low_disk",
    "no_machine",
    "few_machines",
    "busy_machines",
    "busy_devices",
    "in_cluster_queue",
    "cluster_unreachable",
)
_NAMED = 3
"""Machines and jobs that a sentence names; the others are counted."""


class Reason(NamedTuple):
    code: str
    text: str
    values: dict[str, Any]

    def wait(self, position: int, estimated_start: float | None) -> Wait:
        return Wait(position, self.text, estimated_start, self.code, self.values)


def starts_now(worker: str) -> Reason:
    return Reason("starts_now", f"The job is about to start on {worker}.", {"machine": worker})


def many_before(count: int) -> Reason:
    return Reason("many_before", f"The job waits for at least {count} jobs that come before it.", {"count": count})


def after_failure(seconds: float) -> Reason:
    rounded = math.ceil(seconds)
    return Reason("after_failure", f"Starts again in {rounded} s, after a failure.", {"seconds": rounded})


def owner_at_limit(count: int) -> Reason:
    text = f"The owner already runs {count} job{'s' * (count != 1)}, the most that may run at once."
    return Reason("owner_at_limit", text, {"count": count})


def waits_for_others(claim: Claim) -> Reason:
    preempted, leaving = (_jobs(each) for each in (claim.preempted, claim.leaving))
    parts = [(preempted, "to save and make room"), (leaving, "to stop")]
    waits = [f"{_listed(names, len(names))} {what}" for names, what in parts if names]
    if len(preempted) + len(leaving) < len(claim.preempted) + len(claim.leaving):
        waits.append("an inference server to end")
    code = "preempts_and_waits" if preempted and leaving else "preempts" if preempted else "waits_for_stopping"
    text = f"The job waits for {' and for '.join(waits)}."
    return Reason(code, text, {"preempted": preempted, "stopping": leaving})


def in_cluster_queue(reason: str) -> Reason:
    """`reason` is the cluster's own word."""
    return Reason("in_cluster_queue", f"The job waits in the cluster's queue: {reason}.", {"reason": reason})


def cluster_unreachable() -> Reason:
    text = "The job waits for the cluster, whose controller does not answer. It goes on when that is back."
    return Reason("cluster_unreachable", text, {})


def _jobs(occupants: Iterable[str]) -> list[str]:
    return sorted(each for each in occupants if not each.startswith(ids.INFERENCE_SERVER))


def kept_for_another(now: float, able: list[View], job: Waiting) -> Reason | None:
    """The sentence where enough devices are free but kept for another job, else None."""
    enough = [view for view in able if len(view.ready) >= view.needs]
    if len(enough) < job.nodes:
        return None
    other = next(slot.kept_for for view in enough for slot in view.ready if not slot.open(now, job))
    text = f"The job waits for devices that are kept for {other}, which comes first."
    return Reason("kept_for_another", text, {"job": other})


def low_disk(job: Waiting, hosts: Sequence[Host]) -> Reason | None:
    """The sentence where machines could train the job if their disks had more room, else None."""
    low = {
        host.name: host.reserve_bytes for host in hosts if len(job.usable.get(host.name, ())) >= job.needs[host.name]
    }
    if not low:
        return None
    names, reserve = sorted(low), max(each or 0 for each in low.values())
    has = "has" if len(names) == 1 else "have"
    text = f"The job waits for disk space: {_listed(names, len(names))} {has} less than {reserve / 1e9:.1f} GB free."
    return Reason("low_disk", text, {"machines": names, "bytes": reserve})


def too_few(job: Waiting, there: list[View]) -> Reason:
    if not there:
        return Reason("no_machine", "The job waits for a machine that can train it; none is there.", {})
    if len(there) < job.nodes:
        found = f"{len(there)} {'is' if len(there) == 1 else 'are'} there"
        text = f"The job waits for {job.nodes} machines that can train it; {found}."
        return Reason("few_machines", text, {"nodes": job.nodes, "found": len(there)})
    sizes = sorted({(view.needs, view.machine.host.unit) for view in there}, reverse=True)
    what = " or ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in sizes)
    needs = [{"count": count, "unit": unit} for count, unit in sizes]
    if job.nodes > 1:
        free = sum(len(view.ready) >= view.needs for view in there)
        found = f"{free or 'none'} {'have' if free > 1 else 'has'} them free"
        text = f"The job waits for {job.nodes} machines with {what} each; {found}."
        return Reason("busy_machines", text, {"nodes": job.nodes, "needs": needs, "free": free})
    nearest = heapq.nsmallest(_NAMED, there, key=attrgetter("nearest"))
    text = f"The job waits for {what} on one machine: {_listed([_has(view, job) for view in nearest], len(there))}."
    machines = [_state(view, job) for view in nearest]
    return Reason("busy_devices", text, {"needs": needs, "states": machines, "more": len(there) - len(nearest)})


def _has(view: View, job: Waiting) -> str:
    state = _state(view, job)
    words = f"{view.name} has {state['free']} of {state['usable']} free"
    return f"{words} and {state['busy']} busy or unavailable" if state["busy"] else words


def _state(view: View, job: Waiting) -> dict[str, Any]:
    usable = job.usable[view.name]
    busy = len(usable & view.machine.host.busy)
    return {"machine": view.name, "free": len(view.ready), "usable": len(usable), "busy": busy}


def _listed(names: list[str], count: int) -> str:
    """The first names; `count` is how many there are in all."""
    more = count - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
