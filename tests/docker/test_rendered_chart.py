"""What Helm makes of the chart. Every manifest has passed Kubernetes' published schemas: helm_program.py."""

from pathlib import Path
from typing import Any

import pytest

from api.settings import ApiSettings
from migrations.settings import MigrationSettings
from tests.docker import helm
from tests.docker.compose_files import fields, services
from tests.docker.dockerfiles import DOCKERFILES, image_environment
from worker.launchers.kubernetes_api import DOCTOR_RIGHTS, LAUNCHER_RIGHTS, Right
from worker.launchers.kubernetes_jobset import DATA
from worker.launchers.profiles import KubernetesProfile, read_profiles
from worker.settings import WorkerSettings

pytestmark = pytest.mark.exhaustive

PROFILE = {"queue": "team-nlp", "cpus": 32, "memory": "256GiB"}
GPU = {"gpu": "nvidia.com/gpu", "gpu_memory": "80GB", "gpus_per_node": 8}
VALUES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "on cores": {"worker": {"gpus": 0, "image": "finetuned-worker-cpu", "settings": {"FINETUNED_SLOTS": "2"}}},
    "on GPUs": {"worker": {"gpus": 8, "gpuResource": "amd.com/gpu", "replicas": 2, "nodeSelector": {"zone": "a"}}},
    "own servers": {
        "database": {"host": "db.example", "options": "sslmode=require"},
        "broker": {"host": "broker.example", "user": "api"},
        "home": {"claim": "ours"},
    },
    "a bucket": {
        "settings": {"FINETUNED_STORAGE": "s3://ours", "AWS_ACCESS_KEY_ID": "a", "AWS_REGION": "eu-central-1"}
    },
    "an ingress": {
        "ingress": {"host": "finetuned.example", "className": "nginx", "tlsSecret": "tls", "annotations": {"a/b": "0"}},
        "registry": "registry.example/team",
        "pullSecrets": ["pull"],
        "data": {"claim": "data"},
    },
    "a cluster": {"worker": {"profiles": {"h100": PROFILE | GPU, "cores": PROFILE | {"namespace": "training"}}}},
}


def pod(found: dict[tuple[str, str], helm.Object], kind: str, name: str) -> helm.Object:
    spec: helm.Object = found[kind, f"finetuned-{name}"]["spec"]["template"]["spec"]
    return spec


def pods(found: dict[tuple[str, str], helm.Object]) -> list[helm.Object]:
    return [
        each["spec"]["template"]["spec"] for (kind, _), each in found.items() if kind in ("Deployment", "StatefulSet")
    ]


def containers(each: helm.Object) -> list[helm.Object]:
    return [*each.get("initContainers", []), *each["containers"]]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_pod_is_locked_down(values: helm.Object) -> None:
    for each in pods(helm.render(values)):
        assert each["securityContext"]["runAsNonRoot"] is True
        assert each["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["enableServiceLinks"] is False
        for container in containers(each):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]


def test_only_a_worker_with_profiles_has_a_token() -> None:
    plain = helm.render({})
    assert [each["automountServiceAccountToken"] for each in pods(plain)] == [False] * 4
    assert not {kind for kind, _ in plain} & {"Role", "RoleBinding", "ServiceAccount", "ConfigMap"}
    found = helm.render(VALUES["a cluster"])
    assert pod(found, "StatefulSet", "worker")["automountServiceAccountToken"] is True
    assert sum(each["automountServiceAccountToken"] for each in pods(found)) == 1


def test_roles_grant_what_launcher_and_doctor_call() -> None:
    found = helm.render(VALUES["a cluster"])
    assert {name for kind, name in found if kind == "Role"} == {"ml/finetuned-worker", "training/finetuned-worker"}
    for (kind, _), each in found.items():
        if kind == "Role":
            assert sorted(granted(each), key=str) == sorted([*LAUNCHER_RIGHTS, *DOCTOR_RIGHTS], key=str)
        if kind == "RoleBinding":
            assert each["subjects"] == [{"kind": "ServiceAccount", "name": "finetuned-worker", "namespace": "ml"}]


def granted(role: helm.Object) -> list[Right]:
    return [
        Right(verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def profiles_of(found: dict[tuple[str, str], helm.Object], file: Path) -> dict[str, Any]:
    """As a worker reads them."""
    file.write_text(found["ConfigMap", "finetuned-profiles"]["data"]["profiles.json"])
    profiles = read_profiles(str(file))
    assert isinstance(profiles, dict)
    return profiles


def test_profiles_are_what_a_worker_reads(tmp_path: Path) -> None:
    found = helm.render(VALUES["a cluster"])
    profiles = profiles_of(found, tmp_path / "profiles.json")
    h100, cores = profiles["h100"], profiles["cores"]
    assert isinstance(h100, KubernetesProfile)
    assert (h100.namespace, h100.claim, h100.image) == ("ml", "finetuned-home", "finetuned-worker:0.1.0")
    assert (h100.queue, h100.gpu_memory, h100.gpus_per_node) == ("team-nlp", 80 * 10**9, 8)
    assert (cores.namespace, h100.data_claim) == ("training", None)
    worker = pod(found, "StatefulSet", "worker")
    assert "limits" not in worker["containers"][0]["resources"]
    other = helm.render({"worker": {"profiles": {"h100": PROFILE}}})
    before, after = (
        each["StatefulSet", "finetuned-worker"]["spec"]["template"]["metadata"]["annotations"]
        for each in (found, other)
    )
    assert before != after


def test_profiles_see_the_data_of_api_and_worker(tmp_path: Path) -> None:
    found = helm.render(VALUES["a cluster"] | {"data": {"claim": "ours"}})
    profiles = profiles_of(found, tmp_path / "profiles.json")
    assert {each.data_claim for each in profiles.values()} == {"ours"}
    mounts = [
        pod(found, *each)["containers"][0]["volumeMounts"]
        for each in (("Deployment", "api"), ("StatefulSet", "worker"))
    ]
    assert [[each["mountPath"] for each in of_pod if each["name"] == "data"] for of_pod in mounts] == [[DATA], [DATA]]


def test_worker_asks_for_its_gpus() -> None:
    worker = pod(helm.render(VALUES["on GPUs"]), "StatefulSet", "worker")
    assert worker["containers"][0]["resources"]["limits"] == {"amd.com/gpu": 8}
    assert worker["tolerations"] == [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    cores = pod(helm.render(VALUES["on cores"]), "StatefulSet", "worker")
    assert "tolerations" not in cores
    assert cores["containers"][0]["image"] == "finetuned-worker-cpu:0.1.0"


def test_own_servers_leave_the_charts_out() -> None:
    found = helm.render(VALUES["own servers"])
    assert {kind for kind, _ in found} == {"Deployment", "StatefulSet", "Service"}
    api, worker = (pod(found, *each) for each in (("Deployment", "api"), ("StatefulSet", "worker")))
    assert variable(api["containers"][0], "FINETUNED_DATABASE_URL").endswith(
        "finetuned@db.example:5432/finetuned?sslmode=require"
    )
    assert variable(api["containers"][0], "FINETUNED_BROKER_URL") == "redis://api@broker.example:6379/0"
    assert variable(worker["containers"][0], "FINETUNED_BROKER_URL") == "redis://worker@broker.example:6379/0"
    assert worker["volumes"][0]["persistentVolumeClaim"]["claimName"] == "ours"


def variable(container: helm.Object, name: str) -> str:
    (found,) = [each["value"] for each in container["env"] if each["name"] == name]
    return str(found)


def test_ingress_leads_to_the_api() -> None:
    found = helm.render(VALUES["an ingress"])
    ingress = found["Ingress", "finetuned-api"]
    assert ingress["metadata"]["annotations"] == {"a/b": "0"}
    assert ingress["spec"]["tls"] == [{"hosts": ["finetuned.example"], "secretName": "tls"}]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "finetuned-api", "port": {"name": "http"}}
    api = pod(found, "Deployment", "api")
    assert api["containers"][0]["image"] == "registry.example/team/finetuned-api:0.1.0"
    assert api["imagePullSecrets"] == [{"name": "pull"}]


def every_setting() -> helm.Object:
    return {
        "settings": dict.fromkeys(helm.settings_of("settings"), "x"),
        "api": {"settings": dict.fromkeys(helm.settings_of("api", "settings"), "x")},
        "worker": {"settings": dict.fromkeys(helm.settings_of("worker", "settings"), "x"), "profiles": {"a": PROFILE}},
        "data": {"claim": "data"},
    }


def test_every_setting_reaches_its_process() -> None:
    found = helm.render(every_setting())
    api, worker = pod(found, "Deployment", "api"), pod(found, "StatefulSet", "worker")
    for container, settings in (
        (api["initContainers"][0], MigrationSettings),
        (api["containers"][0], ApiSettings),
        (worker["containers"][0], WorkerSettings),
    ):
        image = image_environment(DOCKERFILES[0]) if settings is ApiSettings else {}
        given = [each["name"] for each in container["env"]]
        assert len(given) == len(set(given))
        ours = {
            name.removeprefix("FINETUNED_").removesuffix("_FILE") for name in [*given, *image] if "FINETUNED_" in name
        }
        assert ours == fields(settings)


def test_each_process_has_the_secrets_that_compose_gives_it() -> None:
    found = helm.render({})
    api, worker = pod(found, "Deployment", "api"), pod(found, "StatefulSet", "worker")
    for each, volume, service in (
        (api, "migrate-secrets", "migrate"),
        (api, "secrets", "api"),
        (worker, "secrets", "worker"),
        (pod(found, "StatefulSet", "postgres"), "secrets", "postgres"),
        (pod(found, "Deployment", "valkey"), "secrets", "valkey"),
    ):
        (secret,) = [known["secret"] for known in each["volumes"] if known["name"] == volume]
        assert secret["secretName"] == "finetuned"
        assert {item["key"] for item in secret["items"]} == set(services("docker-compose.yml")[service]["secrets"])


def test_variables_of_files_name_files_that_are_there() -> None:
    found = helm.render({})
    for each in pods(found):
        volumes = {known["name"]: known["secret"]["items"] for known in each["volumes"] if "secret" in known}
        for container in containers(each):
            (mounted,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/secrets"]
            there = {f"/secrets/{item['path']}" for item in volumes[mounted]}
            named = {known["value"] for known in container.get("env", []) if known["name"].endswith(("_FILE", "_PATH"))}
            assert named <= there


def test_images_and_programs_are_those_of_compose() -> None:
    found = helm.render({})
    compose = services("docker-compose.yml")
    postgres = pod(found, "StatefulSet", "postgres")["containers"][0]
    valkey = pod(found, "Deployment", "valkey")["containers"][0]
    assert (postgres["image"], valkey["image"]) == (compose["postgres"]["image"], compose["valkey"]["image"])
    assert postgres["readinessProbe"]["exec"]["command"] == compose["postgres"]["healthcheck"]["test"][1:]
    said = compose["valkey"]["command"][2].replace("$$", "$").replace("/run/secrets", "/secrets").split()
    assert valkey["command"][2].split() == said
    assert postgres["args"] == ["postgres", "-c", "max_connections=300"]


def test_worker_is_stopped_as_slowly_as_by_compose() -> None:
    worker = pod(helm.render({}), "StatefulSet", "worker")
    compose = int(services("docker-compose.yml")["worker"]["stop_grace_period"].removesuffix("s"))
    assert worker["terminationGracePeriodSeconds"] >= compose
    assert "livenessProbe" not in worker["containers"][0]


def test_home_outlives_the_release() -> None:
    home = helm.render({})["PersistentVolumeClaim", "finetuned-home"]
    assert home["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_rendering_again_changes_nothing() -> None:
    """No password is generated, which an upgrade would change."""
    once, again = ({**helm.render(values)} for values in ({}, {"tag": ""}))
    assert once == again


def test_wrong_value_is_refused_by_helm() -> None:
    refusal = helm.run({"worker": {"settings": {"FINETUNED_GRACES": "1"}}})["refusal"]
    assert "'FINETUNED_GRACES' not allowed" in refusal
