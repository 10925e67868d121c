"""Trains on a Kubernetes cluster: one JobSet for each attempt, which this process creates, watches and deletes.

It is named after the attempt, so the API server refuses a second one: a lost reply submits nothing twice. The run
folder is on a volume that the pods share.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from contract.failure import Failure, FailureCode
from contract.run_dir import RunDir, list_states
from store.scheduling import reasons
from store.scheduling.situation import Wait
from worker.launchers.kubernetes_api import ApiRefused, ApiUnreachable, KubernetesApi, Object
from worker.launchers.kubernetes_ending import LeftByPods, Seen, condition, ending, has_ended
from worker.launchers.kubernetes_jobset import SECONDS_ABOVE_GRACE, jobset_name, make_jobset
from worker.launchers.kubernetes_node import CLAIM, EXIT
from worker.launchers.launcher import Ended, Prepared, TrainerRun
from worker.launchers.profiles import KubernetesProfile
from worker.launchers.slurm_node import ALIVE, STOP
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 3.0
_SECONDS_TO_AN_END = 1.0
"""Between two looks once the job is about to end."""
_SECONDS_BETWEEN_POSITIONS = 30.0
_TICK = 0.25


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


class KubernetesTrainer:
    """A trainer in a JobSet. A thread of this process does all that waits for the API server."""

    def __init__(self, order: JobSetOrder) -> None:
        self._order = order
        self._api = KubernetesApi(order.jobset["metadata"]["namespace"])
        self._wait: Wait | None = reasons.in_cluster_queue("submitted").wait(1, None)
        self._ended: Ended | None = None
        self._verdict: Ended | None = None
        self._stop = self._kill = False
        self._wake = threading.Event()
        self._created = self._begun = False
        self._pods: dict[str, Object] = {}
        """By their uid, as they were seen last."""
        self._workload: Object | None = None
        self._position, self._position_at, self._reason = 1, -math.inf, ""
        self._stop_at: float | None = None
        self._terminating_at: dict[str, float] = {}
        """When each pod was first seen to end."""
        self._thread = threading.Thread(target=self._follow, name=f"kubernetes {order.name}", daemon=True)
        self._thread.start()

    def poll(self) -> Ended | None:
        return self._ended

    def wait(self) -> Ended:
        self._thread.join()
        assert self._ended is not None
        return self._ended

    def stop(self) -> None:
        self._stop = True
        self._wake.set()

    def kill(self) -> None:
        self._kill = True
        self._wake.set()

    def waits(self) -> Wait | None:
        return self._wait

    def _follow(self) -> None:
        while self._ended is None:
            try:
                self._look()
            except ApiUnreachable as error:
                log.warning("%s: the API server does not answer: %s", self._order.name, error)
                if self._wait is not None:
                    self._wait = reasons.cluster_unreachable().wait(1, None)
            except ApiRefused as error:
                log.error("%s: the API server refuses: %s", self._order.name, error)
                if not self._created:
                    self._give_up(str(error))
            except Exception:
                log.exception("%s: the next look at Kubernetes tries again", self._order.name)
            self._rest()
        self._api.close()

    def _rest(self) -> None:
        """Until the next look is due, or there is something to do."""
        since = time.monotonic()
        while self._ended is None and not self._wake.wait(_TICK):
            ends = self._stop or self._kill or self._file(EXIT).exists()
            if time.monotonic() - since > (_SECONDS_TO_AN_END if ends else _SECONDS_BETWEEN_LOOKS):
                break
        self._wake.clear()

    def _look(self) -> None:
        self._give_sign()
        # Before the look: an admission and a start may follow it.
        self._begun = self._file(CLAIM).exists()
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

    def _give_sign(self) -> None:
        """To the pods, which see it while the API server is away too."""
        try:
            self._file(STOP if self._stop or self._kill else ALIVE).touch()
        except OSError as error:
            log.warning("%s: the pods get no sign of this worker: %s", self._order.name, error)

    def _submit(self) -> None:
        if self._stop or self._kill:
            if self._claim():
                self._ended = Ended(128 + 15)  # nothing was created, or it ends as soon as it starts
            return
        self._api.create(self._order.jobset)
        self._created = True
        self._wake.set()

    def _give_up(self, message: str) -> None:
        """Ends the attempt, unless it may have begun."""
        if self._claim():
            failure = Failure(code=FailureCode.DEVICES_UNAVAILABLE, message=f"Kubernetes refused the job: {message}")
            self._ended = Ended(1, failure)

    def _claim(self) -> bool:
        """Takes the attempt, so that a JobSet whose creation got no reply does not. False where a pod has it."""
        with suppress(FileExistsError):
            self._file(CLAIM).open("x").close()
            return True
        return False

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
        if not (self._stop or self._kill):
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
        if jobset is None or self._file(CLAIM).exists():
            self._wait = None
            if jobset is not None and self._is_over(jobset):
                self._workload = self._api.workload(jobset) or self._workload
            return
        reason, position = self._pods_wait(live), 1
        if jobset["spec"].get("suspend"):
            reason, position = self._queue_waits(jobset)
        self._wait = reasons.in_cluster_queue(reason.rstrip(".")).wait(position, None)

    def _pods_wait(self, live: Sequence[Object]) -> str:
        """Why pods that Kueue has admitted do not start."""
        for pod in live:
            if (unplaced := condition(pod, "PodScheduled", "False")) is not None:
                return str(unplaced.get("message") or unplaced.get("reason"))
            for status in pod["status"].get("containerStatuses") or []:
                if waiting := (status.get("state") or {}).get("waiting"):
                    return str(waiting.get("reason"))
        return "its pods start"

    def _queue_waits(self, jobset: Object) -> tuple[str, int]:
        """Kueue's reason, and the place in the queue."""
        workload = self._api.workload(jobset)
        if workload is None:
            return "Kueue has not seen it yet", 1
        pending = condition(workload, "QuotaReserved", "False") or {}
        reason = str(pending.get("message") or pending.get("reason") or "Kueue has not decided yet")
        is_old = time.monotonic() - self._position_at > _SECONDS_BETWEEN_POSITIONS
        if is_old or reason != self._reason:
            queue = self._order.jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
            self._position = self._api.position(queue, workload["metadata"]["name"])
            self._position_at, self._reason = time.monotonic(), reason
        return reason, self._position

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
        return ending(seen, self._left(), stop_requested=self._stop or self._kill)

    def _left(self) -> LeftByPods:
        code, order = self._read(EXIT), self._order
        resumed = order.state.name if order.state else None
        return LeftByPods(
            exit_code=int(code) if code.isdigit() else None,
            saved=any(state.name != resumed for state in list_states([order.folder])),
            told_to_stop=self._file(STOP).exists(),
        )

    def _read(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return self._file(name).read_text().strip()
        return ""

    def _file(self, name: str) -> Path:
        return self._order.folder.path / name
