"""The life of an attempt on Kubernetes, with an API server that says what a test has it say."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from contract.failure import FailureCode
from contract.run_dir import RunDir
from store.scheduling.situation import Wait
from tests.support.kubernetes.cluster import FakeKubernetes
from tests.support.kubernetes.objects import NAME, jobset
from tests.support.waiting import until
from worker.launchers import cluster_trainer, kubernetes_orphans
from worker.launchers import kubernetes as module
from worker.launchers.cluster_node import ALIVE, STOP
from worker.launchers.kubernetes import JobSetOrder, KubernetesTrainer
from worker.launchers.kubernetes_node import CLAIM, EXIT
from worker.launchers.kubernetes_orphans import KubernetesOrphans
from worker.launchers.launcher import Ended
from worker.supervise.orphans import Orphans

Start = Callable[..., KubernetesTrainer]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "runs/one").mkdir(parents=True)
    return RunDir(tmp_path / "runs/one")


@pytest.fixture
def start(kubernetes: FakeKubernetes, run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(cluster_trainer, "_SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(cluster_trainer, "_SECONDS_TO_AN_END", 0.05)
    monkeypatch.setattr(cluster_trainer, "_TICK", 0.02)
    started: list[KubernetesTrainer] = []

    def begin(grace: float = 60, unseen: float = 60) -> KubernetesTrainer:
        order = JobSetOrder(jobset(tmp_path, run.path), run, timedelta(seconds=grace), timedelta(seconds=unseen))
        started.append(KubernetesTrainer(order))
        return started[-1]

    yield begin
    for trainer in started:
        trainer._ended = trainer._ended or Ended(0)
        trainer.wait()


@pytest.fixture
def running(start: Start, kubernetes: FakeKubernetes, run: RunDir) -> KubernetesTrainer:
    """Its pod has begun."""
    trainer = start()
    until(lambda: kubernetes.get("jobsets", NAME))
    kubernetes.admit(NAME)
    kubernetes.pod(NAME, "Running")
    (run.path / CLAIM).write_text("a pod")
    until(lambda: trainer.waits() is None)
    return trainer


def looks(kubernetes: FakeKubernetes, more: int) -> None:
    """Waits until it has looked so often again."""
    before = len(kubernetes.calls("GET"))
    until(lambda: len(kubernetes.calls("GET")) >= before + 2 * more)


def waits(trainer: KubernetesTrainer, words: str) -> Wait:
    return until(lambda: wait if (wait := trainer.waits()) and words in wait.reason else None)


def failure(trainer: KubernetesTrainer) -> tuple[FailureCode, str]:
    ended = until(trainer.poll)
    assert ended.failure is not None
    assert not ended.excused
    return ended.failure.code, ended.failure.message


def test_queued_attempt_shows_kueues_reason_and_place(start: Start, kubernetes: FakeKubernetes) -> None:
    trainer = start()
    waits(trainer, "Kueue has not seen it yet")
    pending = [{"metadata": {"name": "other"}, "positionInLocalQueue": 0}]
    pending += [{"metadata": {"name": f"jobset-{NAME}"}, "positionInLocalQueue": 1}]
    kubernetes.put("pendingworkloads", "a100", items=pending)
    kubernetes.queue(NAME, "insufficient unused quota for nvidia.com/gpu in flavor a100, 8 more needed")
    wait = waits(trainer, "8 more needed")
    assert (wait.code, wait.position, wait.estimated_start) == ("in_cluster_queue", 2, None)


def test_admitted_pod_that_cannot_start_says_why(start: Start, kubernetes: FakeKubernetes) -> None:
    trainer = start()
    until(lambda: kubernetes.get("jobsets", NAME))
    kubernetes.admit(NAME)
    kubernetes.pod(NAME, "Pending", containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}])
    waits(trainer, "ImagePullBackOff")
    unplaced = {"type": "PodScheduled", "status": "False", "message": "0/4 nodes are available"}
    kubernetes.pod(NAME, "Pending", conditions=[unplaced])
    waits(trainer, "0/4 nodes are available")


def test_completed_attempt_is_deleted_after_its_end(
    running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir
) -> None:
    kubernetes.finish(NAME, "Completed")
    looks(kubernetes, 2)
    assert running.poll() is None  # its pod is still there
    kubernetes.pod(NAME, "Succeeded", containerStatuses=[{"state": {"terminated": {"exitCode": 0}}}])
    assert until(running.poll) == Ended(0)
    assert kubernetes.get("jobsets", NAME)["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize("before", [True, False])
def test_lost_reply_submits_nothing_twice(start: Start, kubernetes: FakeKubernetes, before: bool) -> None:
    kubernetes.fault("POST", before=before)
    trainer = start()
    waits(trainer, "Kueue has not seen it yet")
    looks(kubernetes, 2)
    posts = len(kubernetes.calls("POST"))
    assert posts == (2 if before else 1)
    assert trainer.poll() is None


def test_existing_name_is_the_attempts_own(start: Start, kubernetes: FakeKubernetes, tmp_path: Path) -> None:
    kubernetes.fault("GET", status=503)
    start()
    until(lambda: kubernetes.calls("POST"))
    looks(kubernetes, 2)
    assert len(kubernetes.calls("POST")) == 1


@pytest.mark.parametrize("status", [401, 410, 429, 500, 503, None])
def test_server_that_is_away_is_no_failure(start: Start, kubernetes: FakeKubernetes, status: int | None) -> None:
    trainer = start()
    waits(trainer, "Kueue has not seen it yet")
    for _ in range(20):
        kubernetes.fault("GET", status=status)
    wait = waits(trainer, "does not answer")
    assert wait.code == "cluster_unreachable"
    waits(trainer, "Kueue has not seen it yet")
    assert trainer.poll() is None


def test_refused_connection_is_no_failure(running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir) -> None:
    kubernetes.stop()
    (run.path / ALIVE).unlink()
    until((run.path / ALIVE).exists)
    running.stop()
    until((run.path / STOP).exists)
    assert running.poll() is None
    kubernetes.start()
    # The server has forgotten everything: what was requested has ended.
    assert until(running.poll).failure is None


def test_refused_jobset_ends_the_attempt_with_the_servers_words(
    start: Start, kubernetes: FakeKubernetes, run: RunDir
) -> None:
    kubernetes.deny("create jobsets")
    code, message = failure(start())
    assert (code, message) == (
        FailureCode.DEVICES_UNAVAILABLE,
        "Kubernetes refused the job: jobsets is forbidden",
    )
    assert (run.path / CLAIM).exists()  # so a JobSet that comes late trains nothing


def test_attempt_without_a_cluster_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "neither a service account nor KUBECONFIG" in failure(start())[1]


def test_refused_look_ends_no_attempt(running: KubernetesTrainer, kubernetes: FakeKubernetes) -> None:
    kubernetes.fault("GET", status=403)
    looks(kubernetes, 3)
    assert running.poll() is None


def test_stop_of_a_running_job_lets_it_save(
    running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir
) -> None:
    running.stop()
    until(lambda: kubernetes.get("jobsets", NAME)["metadata"].get("deletionTimestamp"))
    assert (run.path / STOP).exists()
    looks(kubernetes, 2)
    assert running.poll() is None
    assert [call for call in kubernetes.calls("DELETE") if "/pods/" in call] == []
    (run.path / EXIT).write_text("1")
    kubernetes.remove("pods", f"{NAME}-node-0-0")
    assert until(running.poll) == Ended(1)


def test_stop_of_a_queued_job_takes_it_from_the_queue(start: Start, kubernetes: FakeKubernetes) -> None:
    trainer = start()
    until(lambda: kubernetes.get("jobsets", NAME))
    trainer.stop()
    assert until(trainer.poll).failure is None
    assert kubernetes.get("jobsets", NAME)["metadata"]["deletionTimestamp"]


def test_kill_waits_for_the_kubelet(running: KubernetesTrainer, kubernetes: FakeKubernetes) -> None:
    running.kill()
    pod = until(lambda: [call for call in kubernetes.calls("DELETE") if "/pods/" in call])
    assert f"{NAME}-node-0-0" in pod[0]
    looks(kubernetes, 2)
    assert kubernetes.get("pods", f"{NAME}-node-0-0") is not None
    assert running.poll() is None
    kubernetes.remove("pods", f"{NAME}-node-0-0")
    assert until(running.poll).failure is None


def test_eviction_by_kueue_is_no_failure(running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir) -> None:
    kubernetes.evict(NAME, "Preempted")
    looks(kubernetes, 2)
    assert running.poll() is None
    kubernetes.remove("pods", f"{NAME}-node-0-0")
    ended = until(running.poll)
    assert (ended.excused, ended.failure) == (True, None)
    assert ended.message == "Kueue has preempted the job; it goes on when the queue has room"
    # Else Kueue would start it again.
    assert kubernetes.get("jobsets", NAME)["metadata"]["deletionTimestamp"]


def test_job_deleted_by_somebody_is_a_failure_of_its_own(
    running: KubernetesTrainer, kubernetes: FakeKubernetes
) -> None:
    kubernetes.remove("jobsets", NAME)
    looks(kubernetes, 2)
    assert running.poll() is None
    kubernetes.remove("pods", f"{NAME}-node-0-0")
    assert failure(running)[0] is FailureCode.CANCELLED_IN_CLUSTER


def test_pod_on_a_silent_node_is_forgotten_in_the_end(
    start: Start, kubernetes: FakeKubernetes, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_ABOVE_GRACE", 0)
    trainer = start(grace=0.3, unseen=0.3)
    until(lambda: kubernetes.get("jobsets", NAME))
    kubernetes.admit(NAME)
    (run.path / CLAIM).write_text("a pod")
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "no word"}
    kubernetes.pod(NAME, "Running", conditions=[lost])
    kubernetes.put("pods", f"{NAME}-node-0-0", metadata={"deletionTimestamp": "2026-12-01T00:00:00Z"})
    kubernetes.finish(NAME, "Failed")
    code, message = failure(trainer)
    assert (code, message) == (FailureCode.NODE_LOST, "Kubernetes lost the job: DeletionByTaintManager on n1: no word")
    assert kubernetes.get("pods", f"{NAME}-node-0-0") is None


def test_deadline_is_read_from_the_job(running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir) -> None:
    run.state(4).mkdir(parents=True)
    kubernetes.job(NAME, "DeadlineExceeded")
    kubernetes.finish(NAME, "Failed")
    kubernetes.remove("pods", f"{NAME}-node-0-0")
    ended = until(running.poll)
    assert (ended.excused, ended.message) == (True, "the job reached its time limit and has saved; it goes on")


def test_orphan_is_told_to_stop_and_deleted_once(
    running: KubernetesTrainer, kubernetes: FakeKubernetes, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_orphans, "_SECONDS_BETWEEN_LOOKS", 0)
    running._ended = Ended(0)  # its follower is gone
    running.wait()
    local = Orphans("one", run.path.parent, timedelta(0))
    orphans = KubernetesOrphans(local, "one", run.path.parent, timedelta(seconds=50), ["training"])
    assert orphans.end(0, lambda: {run.path}) == set()
    assert orphans.end(1, set) == {run.path}
    assert (run.path / STOP).exists()
    orphans.end(10, set)
    assert len(kubernetes.calls("DELETE")) == 1
    orphans.end(60, set)
    assert "/pods/" in kubernetes.calls("DELETE")[1]
    kubernetes.remove("jobsets", NAME)
    assert orphans.end(70, set) == set()
    for api in orphans._apis:
        api.close()
