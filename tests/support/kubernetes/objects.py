"""A profile of a Kubernetes cluster, and the JobSet of an attempt on it."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from contract.run_dir import RunDir
from tests.support.jobs import make_recipe
from tests.support.kubernetes.cluster import NAMESPACE
from worker.launchers.kubernetes_jobset import make_jobset
from worker.launchers.launcher import TrainerRun
from worker.launchers.profiles import KubernetesProfile, Profile
from worker.settings import WorkerSettings

JOB = "job_0123456789abcdef01234567"
NAME = "job-0123456789abcdef01234567-1"
KEYS: dict[str, Any] = {
    "launcher": "kubernetes",
    "namespace": NAMESPACE,
    "queue": "a100",
    "image": "registry.example/finetuned-worker:0.1.0",
    "claim": "home",
    "cpus": 8,
    "memory": "64GiB",
}
GPU = {
    "gpu": "nvidia.com/gpu",
    "gpu_memory": "80GB",
    "gpus_per_node": 8,
    "max_nodes": 4,
    "node_selector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
    "time_limit": "P1D",
}


def make_settings(home: Path, **keys: Any) -> WorkerSettings:
    profiles: dict[str, Profile] = {"a": KubernetesProfile.model_validate(KEYS | keys)}
    database, broker = SecretStr("a-secret-url"), SecretStr("another-secret-url")
    return WorkerSettings(database_url=database, broker_url=broker, home=home, worker="one", profiles=profiles)


def jobset(
    home: Path, folder: Path, environment: dict[str, str] | None = None, nodes: int = 1, gpus: int = 1, **keys: Any
) -> dict[str, Any]:
    recipe = make_recipe(resources={"profile": "a", "nodes": nodes, "gpus": gpus})
    run = TrainerRun(JOB, 1, recipe, RunDir(folder), None)
    settings = make_settings(home, **keys)
    profile = settings.profiles["a"]
    assert isinstance(profile, KubernetesProfile)
    return make_jobset(settings, profile, run, environment or {}, 10001)
