"""How the JobSet of an attempt has ended, from what the API server says and what its pods have left. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract.failure import Failure, FailureCode
from worker.launchers.cluster_node import TAKEN
from worker.launchers.launcher import Ended

_MADE_ROOM = ("PreemptionByScheduler", "EvictionByEvictionAPI")
"""Why a pod had to go, and is welcome to return. A kubelet's own reasons may lie in the job, and count."""

Object = Mapping[str, Any]


@dataclass(frozen=True)
class LeftByPods:
    """What the pods have left in the run folder."""

    exit_code: int | None = None
    """The first pod's; None where that was killed."""
    saved: bool = False
    """A training checkpoint further than that which it resumed from."""
    told_to_stop: bool = False
    """By a sign of this service: of the follower, or of a worker that takes the attempt for an orphan."""


@dataclass(frozen=True)
class Seen:
    """What the API server said last of each object."""

    jobset: Object | None
    """None once it is gone."""
    jobs: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    workload: Object | None = None


def ending(seen: Seen, left: LeftByPods, *, stop_requested: bool) -> Ended:
    code = _exit_code(seen.pods, left)
    known = code if code is not None else 128 + 15
    if stop_requested:
        return Ended(known)
    if seen.jobset is None or seen.jobset["metadata"].get("deletionTimestamp"):
        return _deleted(known, left)
    if seen.jobset["spec"].get("suspend"):
        return _evicted(known, left, condition(seen.workload, "Evicted"))
    for pod in seen.pods:
        if (disruption := condition(pod, "DisruptionTarget")) is not None:
            return _disrupted(known, pod, disruption)
    if any(end.get("reason") == "OOMKilled" for end in _terminations(seen.pods)):
        message = "Kubernetes ended the job: it took more memory than its pod was given; see the profile's memory"
        return Ended(known, Failure(code=FailureCode.OUT_OF_MEMORY, message=message))
    failed = next((found for job in seen.jobs if (found := condition(job, "Failed"))), {})
    if failed.get("reason") == "DeadlineExceeded":
        return _reached_limit(known, left)
    if code == TAKEN:
        message = "the job ended at its start: it was a second start of the attempt, or its worker had been silent"
        return Ended(code, Failure(code=FailureCode.NODE_LOST, message=message))
    if code is None and condition(seen.jobset, "Completed") is None:
        words = failed.get("message") or (condition(seen.jobset, "Failed") or {}).get("message") or "nobody says why"
        return _lost(known, words)
    return Ended(code or 0)


def condition(given: Object | None, kind: str, status: str = "True") -> Object | None:
    """The condition of that type of an object, if it has it."""
    found = ((given or {}).get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == kind and each["status"] == status), None)


def has_ended(pod: Object) -> bool:
    """Whether no process of it is left."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _exit_code(pods: Sequence[Object], left: LeftByPods) -> int | None:
    if left.exit_code is not None:
        return left.exit_code
    codes = [int(end["exitCode"]) for end in _terminations(pods)]
    return next((code for code in codes if code), codes[0] if codes else None)


def _terminations(pods: Sequence[Object]) -> list[Object]:
    statuses = [status for pod in pods for status in pod["status"].get("containerStatuses") or []]
    return [end for status in statuses if (end := (status.get("state") or {}).get("terminated"))]


def _deleted(code: int, left: LeftByPods) -> Ended:
    if left.told_to_stop:
        return Ended(code, excused=True, message="another worker of the same name has ended the job; it goes on")
    message = "the JobSet was deleted, and not by this service; a retry goes on from what it has saved"
    return Ended(code, Failure(code=FailureCode.CANCELLED_IN_CLUSTER, message=message))


def _evicted(code: int, left: LeftByPods, evicted: Object | None) -> Ended:
    reason = (evicted or {}).get("reason", "")
    if "MaximumExecutionTimeExceeded" in reason:
        return _reached_limit(code, left)
    if reason.startswith("Deactivated") or not reason:
        message = f"the job was suspended in the cluster{f' ({reason})' if reason else ''}, and not by this service"
        return Ended(code, Failure(code=FailureCode.CANCELLED_IN_CLUSTER, message=message))
    word = "preempted" if reason == "Preempted" else f"evicted ({reason})"
    return Ended(code, excused=True, message=f"Kueue has {word} the job; it goes on when the queue has room")


def _disrupted(code: int, pod: Object, disruption: Object) -> Ended:
    reason, node = disruption.get("reason", ""), pod["spec"].get("nodeName", "its node")
    if reason in _MADE_ROOM:
        word = "preempted" if reason == "PreemptionByScheduler" else "evicted"
        return Ended(
            code, excused=True, message=f"a pod of the job was {word} on {node}; it goes on when there is room"
        )
    return _lost(code, f"{reason} on {node}: {disruption.get('message', '')}")


def _reached_limit(code: int, left: LeftByPods) -> Ended:
    if left.saved:
        return Ended(code, excused=True, message="the job reached its time limit and has saved; it goes on")
    message = "the job reached its time limit before it had saved; a longer time_limit of the profile helps"
    return Ended(code, Failure(code=FailureCode.TRAINER_KILLED, message=message))


def _lost(code: int, words: str) -> Ended:
    message = f"Kubernetes lost the job: {re.sub(r'[ .:]+$', '', words)}"
    return Ended(code, Failure(code=FailureCode.NODE_LOST, message=message))
