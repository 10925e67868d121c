"""Trains on a Kubernetes cluster: one JobSet for each attempt, which this process creates, watches and deletes.

It is named after the attempt, so the API server refuses a second one: a lost reply submits nothing twice. The run
folder is on a volume that the pods share.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from contract.run_dir import RunDir
from store.scheduling import reasons
from worker.launchers.cluster_node import STOP
from worker.launchers.cluster_trainer import ClusterRefused, ClusterTrainer
from worker.launchers.kubernetes_api import KubernetesApi, Object
from worker.launchers.kubernetes_ending import LeftByPods, Seen, condition, ending, has_ended
from worker.launchers.kubernetes_jobset import SECONDS_ABOVE_GRACE, jobset_name, make_jobset
from worker.launchers.kubernetes_node import CLAIM, EXIT
from worker.launchers.launcher import Ended, Prepared, TrainerRun
from worker.launchers.profiles import KubernetesProfile
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KubernetesLauncher:
    settings: WorkerSettings
    profile: KubernetesProfile

    def prepare(self, run: TrainerRun) -> Prepared:
        settings = self.settings
        jobset = make_jobset(settings, self.profile, run, os.environ, os.getuid())
        order = JobSetOrder(jobset, run.folder, settings.grace, settings.unseen, run.state)
        command = ["kubectl", "get", "jobset", jobset_name(run), f"--namespace={self.profile.namespace}"]
        return Prepared(command, None, partial(KubernetesTrainer, order))


@dataclass(frozen=True)
class JobSetOrder:
    """What is created for an attempt."""

    jobset: dict[str, Any]
    folder: RunDir
    grace: timedelta
    unseen: timedelta
    """How long a pod can live on a node that nobody reaches: then it has ended by itself."""
    state: Path | None = None
    """The training checkpoint that it resumes from."""

    @property
    def name(self) -> str:
        return str(self.jobset["metadata"]["name"])


class KubernetesTrainer(ClusterTrainer):
    """A trainer in a JobSet."""

    def __init__(self, order: JobSetOrder) -> None:
        super().__init__(order.name, order.folder, order.state, CLAIM, EXIT)
        self._order = order
        self._api = KubernetesApi(order.jobset["metadata"]["namespace"])
        self._verdict: Ended | None = None
        self._created = self._begun = False
        self._pods: dict[str, Object] = {}
        """By their uid, as they were seen last."""
        self._workload: Object | None = None
        self._stop_at: float | None = None
        self._terminating_at: dict[str, float] = {}
        """When each pod was first seen to end."""
        self._thread.start()

    def _refused(self, error: ClusterRefused) -> None:
        if not self._created:
            self._give_up(f"Kubernetes refused the job: {error}")

    def _close(self) -> None:
        self._api.close()

    def _look(self) -> None:
        # Before the look: an admission and a start may follow it.
        self._begun = self._claim_file.exists()
        jobset = self._api.find(self._order.name)
        if jobset is None and not self._created:
            self._submit()
            return
        self._created = True
        pods = self._api.pods(self._order.name)
        self._pods.update({pod["metadata"]["uid"]: pod for pod in pods})
        live = [pod for pod in pods if not has_ended(pod) and not self._is_forgotten(pod)]
        if self._is_over(jobset):
            self._end(jobset, live)
        if self._ended is None:
            self._carry_out(jobset, live)
            self._note(jobset, live)

    def _submit(self) -> None:
        if self._is_to_end:
            self._end_before_submission()
            return
        self._api.create(self._order.jobset)
        self._created = True
        self._wake.set()

    def _is_over(self, jobset: Object | None) -> bool:
        """Whether it starts no more pods, or none of this attempt."""
        if jobset is None or jobset["metadata"].get("deletionTimestamp"):
            return True
        if condition(jobset, "Completed") or condition(jobset, "Failed"):
            return True
        return bool(jobset["spec"].get("suspend")) and self._begun

    def _is_forgotten(self, pod: Object) -> bool:
        """Whether its node is unreachable for longer than its processes can live there."""
        if not pod["metadata"].get("deletionTimestamp"):
            return False
        since = self._terminating_at.setdefault(pod["metadata"]["uid"], time.monotonic())
        longest = self._order.grace.total_seconds() + SECONDS_ABOVE_GRACE + self._order.unseen.total_seconds()
        if time.monotonic() - since <= longest:
            return False
        self._api.end_pod(pod["metadata"]["name"], 0)
        return True

    def _carry_out(self, jobset: Object | None, live: Sequence[Object]) -> None:
        """Carries out a request to stop."""
        if not self._is_to_end:
            return
        if self._stop_at is None and jobset is not None:
            self._api.delete(self._order.name)
            self._stop_at = time.monotonic()
        longest = self._order.grace.total_seconds() + SECONDS_ABOVE_GRACE
        overdue = self._stop_at is not None and time.monotonic() - self._stop_at > longest
        for pod in live if self._kill or overdue else ():
            # Not 0: then the API server would forget it while its processes may live.
            self._api.end_pod(pod["metadata"]["name"], 1)

    def _note(self, jobset: Object | None, live: Sequence[Object]) -> None:
        if jobset is None or self._claim_file.exists():
            self._wait = None
            if jobset is not None and self._is_over(jobset):
                self._workload = self._api.workload(jobset) or self._workload
            return
        if jobset["spec"].get("suspend"):
            self._note_workload(self._api.workload(jobset))
        else:
            self._wait = reasons.in_cluster_queue(self._pods_wait(live).rstrip(".")).wait(1, None)

    def _pods_wait(self, live: Sequence[Object]) -> str:
        """Why pods that Kueue has admitted do not start."""
        for pod in live:
            if (unplaced := condition(pod, "PodScheduled", "False")) is not None:
                return str(unplaced.get("message") or unplaced.get("reason"))
            for status in pod["status"].get("containerStatuses") or []:
                if waiting := (status.get("state") or {}).get("waiting"):
                    return str(waiting.get("reason"))
        return "its pods start"

    def _note_workload(self, workload: Object | None) -> None:
        """Kueue's reason, and the place in the queue."""
        if workload is None:
            self._wait = reasons.in_cluster_queue("Kueue has not seen it yet").wait(1, None)
            return
        pending = condition(workload, "QuotaReserved", "False") or {}
        reason = str(pending.get("message") or pending.get("reason") or "Kueue has not decided yet")
        queue = self._order.jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        self._note_queue(reason.rstrip("."), lambda: self._api.position(queue, workload["metadata"]["name"]), None)

    def _end(self, jobset: Object | None, live: Sequence[Object]) -> None:
        if live:
            return
        # Once: what follows deletes what it is read from.
        self._verdict = self._verdict or self._judge(jobset)
        if jobset is not None:
            self._api.delete(self._order.name)
        self._ended = self._verdict
        log.info("%s ended: %s", self._order.name, json.dumps((jobset or {}).get("status")))

    def _judge(self, jobset: Object | None) -> Ended:
        if jobset is not None:
            self._workload = self._api.workload(jobset) or self._workload
        jobs = self._api.jobs(self._order.name)
        seen = Seen(jobset, jobs, list(self._pods.values()), self._workload)
        return ending(seen, self._left(), stop_requested=self._is_to_end)

    def _left(self) -> LeftByPods:
        return LeftByPods(
            exit_code=self._exit_code(),
            saved=self._has_saved(),
            told_to_stop=self._file(STOP).exists(),
        )
