"""Profiles: an operator's names for parts of a cluster, in one JSON file, with what Slurm or Kubernetes wants to know
of each."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from contract import patterns
from contract.machine import Gpu, Machine, OfferedProfile
from runtime.settings import Seconds

Word = Annotated[str, StringConstraints(pattern=r"^[^\s\x00]+$")]
Name = Annotated[str, StringConstraints(pattern=patterns.PROFILE)]

_OURS = (
    *("--comment", "--job-name", "-J", "--chdir", "-D", "--output", "-o", "--error", "-e", "--open-mode", "--export"),
    *("--signal", "--requeue", "--no-requeue", "--nodes", "-N", "--ntasks", "-n", "--ntasks-per-node", "--array", "-a"),
    *("--wrap", "--parsable", "--wait", "-W", "--partition", "-p", "--account", "-A", "--time", "-t", "--gres"),
)
"""Options of sbatch that the launcher or another key of the profile gives."""


class _Cluster(BaseModel):
    """What both kinds say of the nodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Most GPUs that a job gets on a node; on nodes without GPUs, most ranks."""
    max_nodes: Annotated[int, Field(ge=1, le=64)] = 1
    gpu_memory: ByteSize | None = None
    """Memory of a GPU, such as "80GB", from which plans and refusals follow."""
    compute_capability: tuple[int, int] = (8, 0)
    """CUDA's, such as [9, 0] for an H100, which computes in FP8."""
    max_jobs: Annotated[int, Field(ge=1, le=500)] = 8
    """Most jobs at once in the cluster's queue, waiting or running."""

    def offer(self, name: str) -> OfferedProfile:
        gpu = Gpu(uuid="", name=name, memory_bytes=self.gpu_memory, compute_capability=self.compute_capability)
        node = Machine(
            gpus=[gpu] * self.gpus_per_node if self.gpu_memory else [],
            cores=self.gpus_per_node,
            cpu_bf16=False,
            slots=self.gpus_per_node,
            profile=name,
        )
        return OfferedProfile(name=name, node=node, max_nodes=self.max_nodes, max_jobs=self.max_jobs)


class SlurmProfile(_Cluster):
    launcher: Literal["slurm"]
    partition: Word | None = None
    """None is the cluster's default, as of account and time_limit."""
    gres: Annotated[str, StringConstraints(pattern=r"^gpu(:[A-Za-z0-9_.-]+)?$")] | None = None
    """The GPUs of a node, such as "gpu:a100"; None trains on cores, one for each rank."""
    account: Word | None = None
    time_limit: Annotated[str, StringConstraints(pattern=r"^(\d+|(\d+-)?\d+(:\d+){0,2})$")] | None = None
    """As sbatch takes it, such as "1-00:00:00". A job that reaches it saves, and is submitted again."""
    image: Annotated[str, StringConstraints(pattern=r"^/")] | None = None
    """Path of an Apptainer image with the worker's own version; None runs the worker's Python on the nodes."""
    options: list[Word] = []
    """More options of sbatch, such as "--cpus-per-task=8" and "--mem=64G"."""

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        if (self.gres is None) != (self.gpu_memory is None):
            raise ValueError("gres and gpu_memory go together: give both, or neither for a partition without GPUs")
        return self

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        for option in self.options:
            if not option.startswith("-"):
                raise ValueError(f'options: got "{option}"; each is one word that begins with "-"')
            if (name := option.split("=")[0]) in _OURS:
                raise ValueError(f'options: got "{option}"; {name} is given by the service or by another key')
        return self


DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""A name of a Kubernetes object."""
Label = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]


class KubernetesProfile(_Cluster):
    launcher: Literal["kubernetes"]
    namespace: Annotated[DnsName, StringConstraints(max_length=63)]
    queue: DnsName
    """The LocalQueue of Kueue that its jobs wait in."""
    image: Word
    """The worker's image, of the worker's own version."""
    claim: DnsName
    """The volume claim with FINETUNED_HOME, which every node can mount."""
    data_claim: DnsName | None = None
    """The volume claim with models and datasets, read-only at /data in the pods of jobs. API and worker need it there
    too."""
    cpus: Annotated[int, Field(ge=1)]
    """Of a pod, as is `memory`."""
    memory: ByteSize
    gpu: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] | None = None
    """The resource that a device plugin offers, such as "nvidia.com/gpu"; None trains on cores."""
    node_selector: dict[LabelKey, Label] = {}
    """Labels that a node must have, such as {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}."""
    time_limit: Annotated[Seconds, Field(ge=timedelta(minutes=1))] | None = None
    """Seconds, or a duration such as "P1D". A job that reaches it saves, and is submitted again."""

    @model_validator(mode="after")
    def _check_gpus(self) -> Self:
        if (self.gpu is None) != (self.gpu_memory is None):
            raise ValueError("gpu and gpu_memory go together: give both, or neither for nodes without GPUs")
        return self


Profile = Annotated[SlurmProfile | KubernetesProfile, Field(discriminator="launcher")]

_profiles = TypeAdapter(Annotated[dict[Name, Profile], Field(min_length=1)])


def read_profiles(given: object) -> object:
    """The profiles in the file of that path. Raises ValueError that names the profile and the key."""
    if not isinstance(given, str):
        return given
    try:
        return _profiles.validate_json(Path(given).read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {given}: {error.strerror}") from error
    except ValidationError as error:
        raise ValueError("; ".join(_problem(problem) for problem in error.errors(include_url=False))) from error


def _problem(problem: Any) -> str:
    where, message = problem["loc"], re.sub(r"^Value error, ", "", problem["msg"])
    if not where:
        return message
    # A wrong key comes with its launcher before it.
    key = ".".join(str(part) for part in where[1:] if part not in ("slurm", "kubernetes"))
    return f"profile {where[0]}{f', {key}' if key else ''}: {message}"


def offering(machine: Machine, profiles: Mapping[str, Profile]) -> Machine:
    """What a worker with profiles registers: places in the cluster's queue, and nothing of its own machine."""
    offered = [profile.offer(name) for name, profile in profiles.items()]
    places = sum(profile.max_jobs for profile in offered)
    return machine.model_copy(update={"gpus": [], "slots": places, "profiles": offered, "unusable": None})
