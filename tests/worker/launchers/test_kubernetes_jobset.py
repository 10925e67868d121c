"""The JobSet as JobSet's and Kubernetes' published schemas want it, and what it promises."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.kubernetes.objects import GPU, NAME, jobset
from worker.launchers.kubernetes_jobset import DATA, SECONDS_ABOVE_GRACE

SCHEMA = Path(__file__).with_name("jobset-v1alpha2.schema.json.gz")
HOME = Path("/var/lib/finetuned")
FOLDER = HOME / "runs/one/attempt-1"


def made(**keys: Any) -> dict[str, Any]:
    return jobset(HOME, FOLDER, **keys)


def job(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    return spec


def pod(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job(found)["template"]["spec"]
    return spec


def check(found: dict[str, Any]) -> None:
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    # The API server has checked the names and labels by rules of its own.
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(found)))


@pytest.mark.parametrize("keys", [{}, {**GPU, "gpus": 8, "nodes": 4, "data_claim": "data"}])
def test_jobset_is_what_its_schema_wants(keys: dict[str, Any]) -> None:
    check(made(**keys))


def test_data_is_mounted_for_reading_alone() -> None:
    found = pod(made(data_claim="ours"))
    (volume,) = [each for each in found["volumes"] if each["name"] == "data"]
    assert volume["persistentVolumeClaim"] == {"claimName": "ours", "readOnly": True}
    assert {"name": "data", "mountPath": DATA, "readOnly": True} in found["containers"][0]["volumeMounts"]
    assert "data" not in [each["name"] for each in pod(made())["volumes"]]


def test_schema_refuses_an_unknown_field() -> None:
    found = made()
    job(found)["backofLimit"] = 0
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        check(found)


def test_name_is_the_attempts_and_its_pods_fit_in_dns() -> None:
    found = made(nodes=4)
    assert found["metadata"]["name"] == NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", NAME)
    assert len(f"{NAME}-node-0-3-abcde") <= 63


def test_first_pods_name_is_where_the_launchers_meet() -> None:
    found = made(nodes=2)
    command = pod(found)["containers"][0]["command"]
    assert command[command.index("--endpoint") + 1] == f"{NAME}-node-0-0.{NAME}:29400"
    assert found["spec"]["network"]["subdomain"] == NAME
    assert (job(found)["completions"], job(found)["completionMode"]) == (2, "Indexed")


def test_kueue_starts_it_and_nothing_starts_it_again() -> None:
    found = made(**GPU)
    assert found["spec"]["suspend"] is True
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "a100"
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 0
    assert (job(found)["backoffLimit"], pod(found)["restartPolicy"]) == (0, "Never")
    assert job(found)["activeDeadlineSeconds"] == 86_400


def test_pod_has_longer_than_a_trainer_takes_to_save() -> None:
    assert pod(made())["terminationGracePeriodSeconds"] == 45 + SECONDS_ABOVE_GRACE


def test_pod_gets_its_gpus_and_their_nodes() -> None:
    its = pod(made(**GPU, gpus=8))
    limits = its["containers"][0]["resources"]["limits"]
    assert limits == {"memory": str(64 << 30), "nvidia.com/gpu": "8"}
    assert its["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert its["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_pod_runs_without_rights_and_without_a_token() -> None:
    its = pod(made())
    assert its["automountServiceAccountToken"] is False
    assert (its["securityContext"]["runAsNonRoot"], its["securityContext"]["runAsUser"]) == (True, 10001)
    assert its["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    writable = {each["mountPath"] for each in its["containers"][0]["volumeMounts"]}
    assert writable == {str(HOME), "/tmp", "/dev/shm"}


def test_environment_is_chosen() -> None:
    given = {
        "PATH": "/worker/bin",
        "HF_TOKEN": "hf_secret",
        "HF_ENDPOINT": "https://hub.example",
        "CUDA_VISIBLE_DEVICES": "0",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "FINETUNED_DATABASE_URL": "a-secret-url",
        "SOME_TOKEN": "secret",
        "NCCL_DEBUG": "INFO",
    }
    found = made(environment=given)
    assert "secret" not in json.dumps(found)
    names = {each["name"] for each in pod(found)["containers"][0]["env"]}
    assert names == {
        *("HF_ENDPOINT", "NCCL_DEBUG", "PYTHONUNBUFFERED", "POD_IP", "POD_UID", "HOME"),
        *("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    }
