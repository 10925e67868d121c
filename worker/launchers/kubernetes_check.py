"""Looks at the Kubernetes clusters of this worker's profiles: what their operator should know before the first job."""

from collections.abc import Iterator, Mapping

from worker.launchers.cluster_trainer import ClusterFault
from worker.launchers.kubernetes_api import (
    DOCTOR_RIGHTS,
    LAUNCHER_RIGHTS,
    ApiRefused,
    ApiUnreachable,
    Claims,
    JobSets,
    KubernetesApi,
    LocalQueues,
    Namespaces,
    Right,
    Workloads,
)
from worker.launchers.kubernetes_ending import condition
from worker.launchers.profiles import KubernetesProfile
from worker.settings import WorkerSettings

_TO_GRANT = "bind the Role of docs/kubernetes.md to the worker's service account there"


def check_clusters(settings: WorkerSettings) -> str:
    """Returns what was found. Raises ClusterFault."""
    profiles = {name: each for name, each in settings.profiles.items() if isinstance(each, KubernetesProfile)}
    found: list[str] = []
    faults: list[str] = []
    for namespace in sorted({profile.namespace for profile in profiles.values()}):
        its = {name: profile for name, profile in profiles.items() if profile.namespace == namespace}
        try:
            found.append(_check_namespace(namespace, its))
        except ClusterFault as fault:
            faults += fault.args
    if faults:
        raise ClusterFault(*faults)
    return "; ".join(found)


def _check_namespace(namespace: str, profiles: Mapping[str, KubernetesProfile]) -> str:
    api = KubernetesApi(namespace)
    try:
        missing = [right for right in LAUNCHER_RIGHTS if not api.is_allowed(right)]
        if missing:
            # Not further: without a right an API server does not say whether a thing is there.
            raise ClusterFault(
                f"namespace {namespace}: this worker may not {_listed(missing)}; create the namespace if it is "
                f"missing, and {_TO_GRANT}"
            )
        unread = [right for right in DOCTOR_RIGHTS if not api.is_allowed(right)]
        faults = [*_check_kinds(api), *_check_objects(api, namespace, profiles, unread)]
    except ApiUnreachable as error:
        raise ClusterFault(
            f"the API server does not answer, or refuses the credentials: {error}; look at the token of the service "
            "account, or at KUBECONFIG"
        ) from error
    except ApiRefused as error:
        raise ClusterFault(f"namespace {namespace}: {error}; look at the rights of the service account") from error
    finally:
        api.close()
    if faults:
        raise ClusterFault(*faults)
    left_out = f", but it may not {_listed(unread)}, so these were not looked at" if unread else ""
    return f"namespace {namespace} has what {_named(profiles)} need{'s' * (len(profiles) == 1)}{left_out}"


def _listed(rights: list[Right]) -> str:
    return ", ".join(map(str, rights))


def _named(profiles: Mapping[str, KubernetesProfile]) -> str:
    return f"profile{'s' * (len(profiles) > 1)} {', '.join(profiles)}"


def _check_kinds(api: KubernetesApi) -> Iterator[str]:
    if not api.serves(JobSets):
        yield "the cluster has no JobSets of version v1alpha2: install JobSet"
    if not api.serves(Workloads):
        yield "the cluster has no Workloads of version v1beta2: install Kueue, or a newer one"


def _check_objects(
    api: KubernetesApi, namespace: str, profiles: Mapping[str, KubernetesProfile], unread: list[Right]
) -> Iterator[str]:
    hidden = {right.resource for right in unread}
    if "namespaces" not in hidden and api.read(Namespaces, namespace) is None:
        yield f"there is no namespace {namespace}: create it, or correct `namespace` of {_named(profiles)}"
        return
    for name, profile in profiles.items():
        if "localqueues" not in hidden:
            yield from _check_queue(api, name, profile)
        if "persistentvolumeclaims" not in hidden:
            yield from _check_claim(api, name, profile, "claim", {"ReadWriteMany"})
            yield from _check_claim(api, name, profile, "data_claim", {"ReadOnlyMany", "ReadWriteMany"})


def _check_queue(api: KubernetesApi, name: str, profile: KubernetesProfile) -> Iterator[str]:
    queue = api.read(LocalQueues, profile.queue)
    if queue is None:
        yield f"profile {name}, queue: {profile.namespace} has no LocalQueue {profile.queue}: create it"
    elif (inactive := condition(queue, "Active", "False")) is not None:
        yield (
            f"profile {name}, queue: {profile.queue} admits nothing: {inactive.get('message') or inactive['reason']}; "
            "look at its ClusterQueue"
        )


def _check_claim(api: KubernetesApi, name: str, profile: KubernetesProfile, key: str, modes: set[str]) -> Iterator[str]:
    """`modes` are the access modes that will do."""
    claimed: str | None = getattr(profile, key)
    if claimed is None:
        return
    claim = api.read(Claims, claimed)
    if claim is None:
        yield f"profile {name}, {key}: {profile.namespace} has no volume claim {claimed}: create it"
    elif not modes.intersection(found := claim["spec"].get("accessModes") or []):
        yield (
            f"profile {name}, {key}: {claimed} is {', '.join(found)}: its nodes and this worker need a volume that is "
            f"{' or '.join(sorted(modes))}"
        )
