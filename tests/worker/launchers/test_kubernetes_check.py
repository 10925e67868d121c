"""What the doctor finds on a Kubernetes cluster."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.kubernetes.cluster import NAMESPACE, FakeKubernetes
from tests.support.kubernetes.objects import NAME, jobset, make_settings
from worker import doctor
from worker.launchers.kubernetes_api import LAUNCHER_RIGHTS, KubernetesApi, Right

VERBS = {"POST": "create", "DELETE": "delete"}


@pytest.fixture(autouse=True)
def whole(kubernetes: FakeKubernetes) -> FakeKubernetes:
    """A cluster with all that the profile names."""
    kubernetes.put("namespaces", NAMESPACE)
    kubernetes.put(
        "localqueues", "a100", status={"conditions": [{"type": "Active", "status": "True", "reason": "Ready"}]}
    )
    kubernetes.put("persistentvolumeclaims", "home", spec={"accessModes": ["ReadWriteMany"]})
    return kubernetes


def look(home: Path, **keys: Any) -> str:
    return doctor.check_kubernetes(make_settings(home, **keys))


def faults(home: Path, **keys: Any) -> list[str]:
    with pytest.raises(doctor.CheckFailed) as failed:
        look(home, **keys)
    return [str(each) for each in failed.value.args]


def test_cluster_with_all_that_a_profile_needs_is_fine(tmp_path: Path) -> None:
    assert look(tmp_path) == "namespace training has what profile a needs"


def test_look_changes_nothing(whole: FakeKubernetes, tmp_path: Path) -> None:
    look(tmp_path)
    assert {call.split("?")[0] for call in whole.calls("POST")} == {
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    }
    assert whole.calls("DELETE") == whole.calls("PUT") == []


def test_missing_rights_are_listed(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.deny("create jobsets", "get localqueues/pendingworkloads")
    (fault,) = faults(tmp_path)
    assert "may not create jobsets of jobset.x-k8s.io, get localqueues/pendingworkloads of visibility.kueue" in fault
    assert "bind the Role of docs/kubernetes.md" in fault


@pytest.mark.parametrize("right", LAUNCHER_RIGHTS, ids=str)
def test_each_right_is_asked_for(whole: FakeKubernetes, tmp_path: Path, right: Right) -> None:
    whole.deny(f"{right.verb} {right.resource}")
    assert str(right) in faults(tmp_path)[0]


def test_what_may_not_be_read_is_named(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.deny("get persistentvolumeclaims")
    whole.remove("persistentvolumeclaims", "home")
    assert look(tmp_path).endswith("may not get persistentvolumeclaims, so these were not looked at")


def test_kinds_of_another_version_are_each_a_fault(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.lack("jobset.x-k8s.io/v1alpha2", "kueue.x-k8s.io/v1beta2")
    one, other, _ = faults(tmp_path)
    assert one == "the cluster has no JobSets of version v1alpha2: install JobSet"
    assert other == "the cluster has no Workloads of version v1beta2: install Kueue, or a newer one"


@pytest.mark.parametrize(
    ("plural", "name", "words"),
    [
        ("namespaces", NAMESPACE, "there is no namespace training: create it"),
        ("localqueues", "a100", "profile a, queue: training has no LocalQueue a100"),
        ("persistentvolumeclaims", "home", "profile a, claim: training has no volume claim home"),
    ],
)
def test_missing_object_is_a_fault(whole: FakeKubernetes, tmp_path: Path, plural: str, name: str, words: str) -> None:
    whole.remove(plural, name)
    (fault,) = faults(tmp_path)
    assert words in fault


def test_queue_that_admits_nothing_is_a_fault(whole: FakeKubernetes, tmp_path: Path) -> None:
    stopped = {"type": "Active", "status": "False", "reason": "ClusterQueueDoesNotExist", "message": "no gpus"}
    whole.put("localqueues", "a100", status={"conditions": [stopped]})
    assert faults(tmp_path) == ["profile a, queue: a100 admits nothing: no gpus; look at its ClusterQueue"]


def test_claim_with_data_is_looked_at_too(whole: FakeKubernetes, tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, data_claim="data")
    assert fault == "profile a, data_claim: training has no volume claim data: create it"
    whole.put("persistentvolumeclaims", "data", spec={"accessModes": ["ReadOnlyMany"]})
    assert look(tmp_path, data_claim="data") == "namespace training has what profile a needs"


def test_claim_of_one_node_is_a_fault(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.put("persistentvolumeclaims", "home", spec={"accessModes": ["ReadWriteOnce"]})
    assert "profile a, claim: home is ReadWriteOnce" in faults(tmp_path)[0]


def test_server_that_refuses_the_credentials_is_a_fault(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.fault("POST", status=401)
    (fault,) = faults(tmp_path)
    assert fault.startswith("the API server does not answer, or refuses the credentials: 401")


def test_server_that_is_away_is_a_fault(whole: FakeKubernetes, tmp_path: Path) -> None:
    whole.fault("POST")
    (fault,) = faults(tmp_path)
    assert "look at the token of the service account, or at KUBECONFIG" in fault


def test_process_without_a_cluster_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (fault,) = faults(tmp_path)
    assert "neither a service account nor KUBECONFIG leads to a cluster" in fault


def test_launcher_calls_what_its_rights_are(whole: FakeKubernetes, tmp_path: Path) -> None:
    api = KubernetesApi(NAMESPACE)
    api.create(jobset(tmp_path, tmp_path / "runs/one"))
    found = api.find(NAME)
    assert found is not None
    api.list_jobsets("one")
    api.pods(NAME)
    api.jobs(NAME)
    api.workload(found)
    api.position("a100", NAME)
    api.end_pod(NAME, 1)
    api.delete(NAME)
    api.close()
    assert rights(whole.calls()) == set(LAUNCHER_RIGHTS)


def test_no_call_of_the_launcher_is_left_out() -> None:
    """Of the test above."""
    public = {name for name in vars(KubernetesApi) if not name.startswith("_")}
    of_the_doctor = {"is_allowed", "serves", "read"}
    called = {"create", "find", "list_jobsets", "pods", "jobs", "workload", "position", "end_pod", "delete"}
    assert public - of_the_doctor == called | {"client", "close"}


def rights(calls: Iterable[str]) -> set[Right]:
    """What a Role must grant for these calls."""
    return {right(*call.split(" ")) for call in calls}


def right(method: str, target: str) -> Right:
    before, _, after = urlsplit(target).path.partition(f"/namespaces/{NAMESPACE}/")
    group = "" if before == "/api/v1" else before.split("/")[2]
    resource, *name = after.split("/")
    return Right(VERBS.get(method, "get" if name else "list"), group, "/".join([resource, *name[1:]]))
