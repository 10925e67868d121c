"""The JobSet of an attempt, as the API server gets it. Pure."""

import json
import math
from collections.abc import Mapping
from typing import Any

from worker.launchers.cluster_node import TAKEN
from worker.launchers.command import trainer_arguments
from worker.launchers.kubernetes_api import RUN_ANNOTATION, WORKER_LABEL, worker_label
from worker.launchers.launcher import TrainerRun
from worker.launchers.profiles import KubernetesProfile
from worker.settings import WorkerSettings
from worker.supervise import process

CONTAINER = "trainer"
PORT = 29400
"""Where the launchers meet. A pod has its own ports."""
DATA = "/data"
"""Where pods see models and datasets, as API and workers of the chart do."""
SECONDS_ABOVE_GRACE = 15
"""From SIGTERM to the kubelet's SIGKILL a pod has so much more than a trainer to save."""
_KEPT = 86_400
"""Seconds that an ended JobSet is kept whose worker did not delete it."""
_NOT_PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "HF_TOKEN")
"""The device plugin sets the former. Whoever may read a pod would read the token."""
_OF_THE_IMAGE = {"PATH", "HOME", "USER", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"}


def jobset_name(run: TrainerRun) -> str:
    """Of one attempt alone, so that the API server refuses a second one."""
    return run.name.replace("_", "-")


def make_jobset(
    settings: WorkerSettings, profile: KubernetesProfile, run: TrainerRun, environment: Mapping[str, str], user: int
) -> dict[str, Any]:
    """`environment` is the worker's. `user` owns the run folder."""
    name, nodes = jobset_name(run), run.recipe.resources.nodes
    job: dict[str, Any] = {
        "parallelism": nodes,
        "completions": nodes,
        "completionMode": "Indexed",
        # Our attempts are the retries: docs/decisions/0012-kubernetes.md.
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        # They change nothing but what the job's condition says of its end, after its pods are gone.
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                _on_exit_codes("In", TAKEN),
                _on_exit_codes("NotIn", 0),
            ]
        },
        "template": {"spec": _pod(settings, profile, run, environment, user)},
    }
    if profile.time_limit is not None:
        job["activeDeadlineSeconds"] = int(profile.time_limit.total_seconds())
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": profile.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "finetuned",
                "kueue.x-k8s.io/queue-name": profile.queue,
                WORKER_LABEL: worker_label(settings.worker),
            },
            "annotations": {RUN_ANNOTATION: str(run.folder.path)},
        },
        "spec": {
            "suspend": True,  # until Kueue admits it
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": name},
            "ttlSecondsAfterFinished": _KEPT,
            "replicatedJobs": [{"name": "node", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _on_exit_codes(operator: str, code: int) -> dict[str, Any]:
    return {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": operator, "values": [code]}}


def _pod(
    settings: WorkerSettings, profile: KubernetesProfile, run: TrainerRun, environment: Mapping[str, str], user: int
) -> dict[str, Any]:
    volumes = [_volume("home", {"persistentVolumeClaim": {"claimName": profile.claim}}, str(settings.home))]
    if profile.data_claim:
        claim = {"claimName": profile.data_claim, "readOnly": True}
        volumes.append(_volume("data", {"persistentVolumeClaim": claim}, DATA, readOnly=True))
    volumes.append(_volume("tmp", {"emptyDir": {}}, "/tmp"))
    # NCCL and data loaders pass tensors through it; a container's own has 64 MB. The pod's memory is its limit.
    volumes.append(_volume("shm", {"emptyDir": {"medium": "Memory"}}, "/dev/shm"))
    limits = {"memory": str(int(profile.memory))}
    if profile.gpu:
        limits[profile.gpu] = str(run.recipe.resources.gpus)
    container = {
        "name": CONTAINER,
        "image": profile.image,
        "command": _command(settings, run),
        "workingDir": str(run.folder.path),
        "env": [{"name": key, "value": value} for key, value in sorted(_environment(settings, environment).items())]
        + [_own("POD_IP", "status.podIP"), _own("POD_UID", "metadata.uid")],
        "resources": {"requests": {"cpu": str(profile.cpus)}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [mount for _, mount in volumes],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(settings.grace.total_seconds()) + SECONDS_ABOVE_GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [volume for volume, _ in volumes],
    }
    if profile.node_selector:
        pod["nodeSelector"] = dict(profile.node_selector)
    if profile.gpu:
        # Nodes with GPUs usually have this taint, which keeps other pods away.
        pod["tolerations"] = [{"key": profile.gpu, "operator": "Exists", "effect": "NoSchedule"}]
    return pod


def _volume(name: str, source: dict[str, Any], path: str, **how: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's part, and the container's."""
    return {"name": name, **source}, {"name": name, "mountPath": path, **how}


def _command(settings: WorkerSettings, run: TrainerRun) -> list[str]:
    resources, name = run.recipe.resources, jobset_name(run)
    return [
        *("python", "-P", "-m", "worker.launchers.kubernetes_node"),
        *("--processes", str(resources.gpus), "--nodes", str(resources.nodes), "--id", run.name),
        # The first pod's name, which the JobSet's headless service resolves before the pod is ready.
        *("--endpoint", f"{name}-node-0-0.{name}:{PORT}"),
        *("--silence", str(settings.cut_off.total_seconds()), "--grace", str(settings.grace.total_seconds())),
        *(["--trainer", json.dumps(settings.trainer)] if settings.trainer else []),
        *("--", *trainer_arguments(settings, run.folder.path, run.state)),
    ]


def _environment(settings: WorkerSettings, given: Mapping[str, str]) -> dict[str, str]:
    passed_on = {
        name: value
        for name, value in process.trainer_environment(given).items()
        if name not in _OF_THE_IMAGE and not name.startswith(_NOT_PASSED_ON_PREFIXES)
    }
    kept = {"HF_HOME": "hub", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    return {name: str(settings.home / folder) for name, folder in kept.items()} | {"HOME": "/tmp"} | passed_on


def _own(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
