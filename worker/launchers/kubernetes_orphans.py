"""Ends the JobSets of attempts that nobody follows any more, as worker.supervise.orphans ends processes."""

import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from worker.launchers.kubernetes_api import RUN_ANNOTATION, KubernetesApi, Object
from worker.launchers.kubernetes_ending import has_ended
from worker.launchers.slurm_orphans import SlurmOrphans, tell_to_stop
from worker.supervise.orphans import Orphans

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 2.0
_LONGEST = 3.0
"""Seconds that a call may take: the worker sends no heartbeat meanwhile."""


class KubernetesOrphans:
    """Wraps the search for what the worker has left elsewhere."""

    def __init__(
        self,
        others: Orphans | SlurmOrphans,
        worker: str,
        runs: Path,
        grace: timedelta,
        namespaces: Collection[str],
    ) -> None:
        self._others = others
        self._worker = worker
        self._runs = runs
        self._grace = grace.total_seconds()
        self._apis = [KubernetesApi(namespace, _LONGEST) for namespace in sorted(namespaces)]
        self._found_at: dict[str, float] = {}
        """When each JobSet was first found without a follower, by its uid."""
        self._next_look = 0.0

    def end(self, now: float, list_followed: Callable[[], Collection[Path]]) -> set[Path] | None:
        """As Orphans.end; None where it is too early for another look. Raises ApiUnreachable and ApiRefused."""
        if now < self._next_look:
            return None
        remaining = self._others.end(now, list_followed)
        if remaining is None:
            return None
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        found = [(api, jobset) for api in self._apis for jobset in api.list_jobsets(self._worker)]
        # Listed after the search, as in Orphans.
        followed = list_followed()
        orphans = [(api, jobset) for api, jobset in found if self._is_ours(jobset) and _run(jobset) not in followed]
        before = self._found_at
        self._found_at = {_uid(jobset): before.get(_uid(jobset), now) for _, jobset in orphans}
        for api, jobset in orphans:
            self._end(api, jobset, now)
        return remaining | {_run(jobset) for _, jobset in orphans}

    def _is_ours(self, jobset: Object) -> bool:
        return RUN_ANNOTATION in jobset["metadata"].get("annotations", {}) and _run(jobset).is_relative_to(self._runs)

    def _end(self, api: KubernetesApi, jobset: Object, now: float) -> None:
        # First: a follower elsewhere, of an earlier worker of this name, reads by it who has ended its job.
        tell_to_stop(_run(jobset))
        name = jobset["metadata"]["name"]
        if not jobset["metadata"].get("deletionTimestamp"):
            log.warning("JobSet %s has no follower and is deleted", name)
            api.delete(name)
        elif now - self._found_at[_uid(jobset)] > self._grace:
            for pod in api.pods(name):
                if not has_ended(pod):
                    api.end_pod(pod["metadata"]["name"], 1)


def _run(jobset: Object) -> Path:
    return Path(jobset["metadata"]["annotations"][RUN_ANNOTATION])


def _uid(jobset: Object) -> str:
    return str(jobset["metadata"]["uid"])
