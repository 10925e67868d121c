from typing import Any

import pytest

from contract.failure import FailureCode
from worker.launchers.kubernetes_ending import LeftByPods, Seen, ending
from worker.launchers.launcher import Ended


def conditions(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def jobset(kind: str = "Failed", suspend: bool = False) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"suspend": suspend}, "status": conditions(kind)}


def pod(code: int, reason: str = "Error", **status: Any) -> dict[str, Any]:
    terminated = {"state": {"terminated": {"exitCode": code, "reason": reason}}}
    return {"metadata": {}, "spec": {"nodeName": "n1"}, "status": {"containerStatuses": [terminated], **status}}


def end(seen: Seen, left: LeftByPods | None = None) -> Ended:
    return ending(seen, left or LeftByPods(), stop_requested=False)


def test_exit_code_is_the_first_pods() -> None:
    assert end(Seen(jobset(), pods=[pod(1), pod(143)]), LeftByPods(exit_code=3)) == Ended(3)
    assert end(Seen(jobset(), pods=[pod(0), pod(5)])) == Ended(5)
    assert end(Seen(jobset("Completed"))) == Ended(0)


def test_what_was_asked_for_is_no_failure() -> None:
    assert ending(Seen(None), LeftByPods(), stop_requested=True) == Ended(143)


@pytest.mark.parametrize("reason", ["PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_pod_that_made_room_is_no_failure(reason: str) -> None:
    ended = end(Seen(jobset(), pods=[pod(1, **conditions("DisruptionTarget", reason))]))
    assert (ended.excused, ended.failure) == (True, None)


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "DeletionByPodGC", "TerminationByKubelet"])
def test_pod_that_its_node_lost_is_a_counted_retry(reason: str) -> None:
    ended = end(Seen(jobset(), pods=[pod(137, **conditions("DisruptionTarget", reason, "why"))]))
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.NODE_LOST
    assert ended.failure.message == f"Kubernetes lost the job: {reason} on n1: why"


def test_memory_of_a_pod_is_told_from_a_kill() -> None:
    ended = end(Seen(jobset(), pods=[pod(137, "OOMKilled")]))
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.OUT_OF_MEMORY


@pytest.mark.parametrize(("saved", "excused"), [(True, True), (False, False)])
def test_deadline_is_excused_for_a_step_further(saved: bool, excused: bool) -> None:
    seen = Seen(jobset(), jobs=[{"status": conditions("Failed", "DeadlineExceeded")}])
    ended = end(seen, LeftByPods(saved=saved))
    assert ended.excused is excused
    assert (ended.failure is None) is excused


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Preempted", "Kueue has preempted the job"),
        ("PodsReadyTimeout", "Kueue has evicted (PodsReadyTimeout) the job"),
        ("NodeFailures", "Kueue has evicted (NodeFailures) the job"),
    ],
)
def test_eviction_is_told_by_its_reason(reason: str, words: str) -> None:
    ended = end(Seen(jobset(suspend=True), workload={"status": conditions("Evicted", reason)}))
    assert ended.excused
    assert ended.message is not None
    assert ended.message.startswith(words)


@pytest.mark.parametrize("workload", [None, {"status": conditions("Evicted", "Deactivated")}])
def test_suspension_by_somebody_is_their_will(workload: dict[str, Any] | None) -> None:
    ended = end(Seen(jobset(suspend=True), workload=workload))
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.CANCELLED_IN_CLUSTER


def test_job_that_a_new_worker_ended_goes_on() -> None:
    ended = end(Seen(None), LeftByPods(told_to_stop=True))
    assert (ended.excused, ended.failure) == (True, None)


def test_second_start_is_told_from_a_lost_node() -> None:
    ended = end(Seen(jobset(), pods=[pod(76)]))
    assert ended.failure is not None
    assert "a second start of the attempt" in ended.failure.message


def test_pod_that_vanished_has_the_jobs_words() -> None:
    jobs = [{"status": conditions("Failed", "PodFailurePolicy", "Pod x has condition DisruptionTarget.")}]
    ended = end(Seen(jobset(), jobs=jobs))
    assert ended.failure is not None
    assert ended.failure.message == "Kubernetes lost the job: Pod x has condition DisruptionTarget"
