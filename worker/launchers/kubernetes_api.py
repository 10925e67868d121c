"""What this worker asks of a Kubernetes API server. A call that got no answer says nothing about the job; it may have
been carried out all the same."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx2
from lightkube import ApiError, Client
from lightkube.core.exceptions import ConfigError
from lightkube.core.resource import ApiInfo, NamespacedSubResource, ResourceDef
from lightkube.generic_resource import (
    Generic,
    GenericGlobalResource,
    GenericNamespacedResource,
    create_global_resource,
    create_namespaced_resource,
)
from lightkube.types import CascadeType

from worker.launchers.cluster_trainer import ClusterRefused, ClusterUnreachable

NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""JobSet's own, on the jobs and pods of a JobSet."""
WORKER_LABEL = "finetuned/worker"
RUN_ANNOTATION = "finetuned/run"
"""The run folder."""

_JOBSET, _KUEUE, _VISIBILITY = "jobset.x-k8s.io", "kueue.x-k8s.io", "visibility.kueue.x-k8s.io"

JobSets = create_namespaced_resource(_JOBSET, "v1alpha2", "JobSet", "jobsets")
Workloads = create_namespaced_resource(_KUEUE, "v1beta2", "Workload", "workloads")
LocalQueues = create_namespaced_resource(_KUEUE, "v1beta2", "LocalQueue", "localqueues")
# As plain objects too: the typed ones would load a class for each of Kubernetes' own kinds.
Jobs = create_namespaced_resource("batch", "v1", "Job", "jobs")
Pods = create_namespaced_resource("", "v1", "Pod", "pods")
Claims = create_namespaced_resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
Namespaces = create_global_resource("", "v1", "Namespace", "namespaces")
_Reviews = create_global_resource(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", verbs=["post"]
)

_NOT_NOW = (401, 408, 410, 429)
"""Beside all from 500: a token that is being renewed, and a server that is busy or was restarted."""

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Right:
    """What a Role grants."""

    verb: str
    group: str
    resource: str
    """Its plural; with "/" and a subresource behind it, that."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.group and f' of {self.group}'}"


LAUNCHER_RIGHTS = (
    *(Right(verb, _JOBSET, "jobsets") for verb in ("get", "list", "create", "delete")),
    *(Right(verb, "", "pods") for verb in ("list", "delete")),
    Right("list", "batch", "jobs"),
    Right("list", _KUEUE, "workloads"),
    Right("get", _VISIBILITY, "localqueues/pendingworkloads"),
)
"""All that a worker does in the namespace of a profile."""

DOCTOR_RIGHTS = (
    Right("get", "", "namespaces"),
    Right("get", "", "persistentvolumeclaims"),
    Right("get", _KUEUE, "localqueues"),
)
"""What only `doctor` reads."""


class PendingWorkloads(NamespacedSubResource, Generic):  # type: ignore[misc]
    """The workloads that wait in a queue, as Kueue's own API server tells them."""

    _api_info = ApiInfo(
        resource=ResourceDef(_VISIBILITY, "v1beta2", "PendingWorkloadsSummary"),
        parent=ResourceDef(_VISIBILITY, "v1beta2", "LocalQueue"),
        plural="localqueues",
        verbs=["get"],
        action="pendingworkloads",
    )


class ApiUnreachable(ClusterUnreachable):
    """No API server has answered, or not in time, or not for now."""


class ApiRefused(ClusterRefused):
    """The API server's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def worker_label(worker: str) -> str:
    """A worker's name may be longer than a label."""
    return hashlib.sha256(worker.encode()).hexdigest()[:16]


class KubernetesApi:
    """Every method raises ApiUnreachable and ApiRefused."""

    def __init__(self, namespace: str, longest: float = 10.0) -> None:
        self._namespace = namespace
        self._longest = longest
        self._made: Client | None = None

    @property
    def client(self) -> Client:
        """As the pod's service account, or as KUBECONFIG says. Made in the process that uses it."""
        if self._made is None:
            try:
                self._made = Client(namespace=self._namespace, timeout=httpx2.Timeout(self._longest))
            except (ConfigError, OSError) as error:
                raise ApiRefused(0, f"neither a service account nor KUBECONFIG leads to a cluster: {error}") from error
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def create(self, jobset: Object) -> None:
        """Creates it, unless one of its name exists: then an earlier call had got through."""
        with _answers():
            try:
                self.client.create(JobSets.from_dict(dict(jobset)))
            except ApiError as error:
                if error.response.status_code != 409:
                    raise

    def find(self, name: str) -> Object | None:
        return self._or_none(lambda: self.client.get(JobSets, name))

    def list_jobsets(self, worker: str) -> list[Object]:
        with _answers():
            return list(self.client.list(JobSets, labels={WORKER_LABEL: worker_label(worker)}))

    def pods(self, name: str) -> list[Object]:
        with _answers():
            return list(self.client.list(Pods, labels={NAME_LABEL: name}))

    def jobs(self, name: str) -> list[Object]:
        with _answers():
            return list(self.client.list(Jobs, labels={NAME_LABEL: name}))

    def workload(self, jobset: Object) -> Object | None:
        """What Kueue has made for it."""
        with _answers():
            labels = {"kueue.x-k8s.io/job-uid": jobset["metadata"]["uid"]}
            return next(iter(self.client.list(Workloads, labels=labels)), None)

    def position(self, queue: str, workload: str) -> int:
        """Its place in the queue; 1 is the next. 1 too where Kueue does not tell."""
        try:
            found = self._or_none(lambda: self.client.get(PendingWorkloads, queue, namespace=self._namespace))
        except ApiRefused:
            found = None
        places = {item["metadata"]["name"]: item["positionInLocalQueue"] for item in (found or {}).get("items") or []}
        return int(places.get(workload, 0)) + 1

    def delete(self, name: str) -> None:
        """Has its pods end, SIGTERM first. The JobSet is there until the last of them has gone."""
        self._or_none(lambda: self.client.delete(JobSets, name, cascade=CascadeType.FOREGROUND))

    def end_pod(self, name: str, seconds: int) -> None:
        """SIGTERM, and SIGKILL after `seconds`. With 0 the API server forgets it, whatever its node does."""
        self._or_none(lambda: self.client.delete(Pods, name, grace_period=seconds))

    def is_allowed(self, right: Right) -> bool:
        """Whether this user has that right in the namespace."""
        resource, _, subresource = right.resource.partition("/")
        attributes = {"namespace": self._namespace, "verb": right.verb, "group": right.group, "resource": resource}
        review = {"spec": {"resourceAttributes": attributes | {"subresource": subresource}}}
        with _answers():
            return bool(self.client.create(_Reviews.from_dict(review)).status["allowed"])

    def serves(self, kind: type[GenericNamespacedResource]) -> bool:
        """Whether the cluster has that kind, in that version."""
        return self._or_none(lambda: list(islice(self.client.list(kind, chunk_size=1), 1))) is not None

    def read(self, kind: type[GenericNamespacedResource | GenericGlobalResource], name: str) -> Object | None:
        return self._or_none(lambda: self.client.get(kind, name))

    def _or_none(self, call: Callable[[], Any]) -> Any:
        with _answers():
            try:
                return call()
            except ApiError as error:
                if error.response.status_code != 404:
                    raise
                return None


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        if status >= 500 or status in _NOT_NOW:
            raise ApiUnreachable(f"{status}: {error}") from error
        raise ApiRefused(status, str(error)) from error
    except httpx2.HTTPError as error:
        raise ApiUnreachable(f"{type(error).__name__}: {error}") from error
