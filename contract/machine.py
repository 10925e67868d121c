"""A machine's hardware, and whether a recipe can be trained on it."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from contract.recipe import Recipe

BF16_CAPABILITY = (8, 0)
"""Compute capability of GPUs that support bfloat16: Ampere and newer. Older ones emulate it, slower than fp32."""
FP8_CAPABILITY = (8, 9)
"""Compute capability of GPUs that multiply in FP8: Ada, Hopper and newer."""
_CAPABILITIES = {"bf16": BF16_CAPABILITY, "fp8": FP8_CAPABILITY}

_MIG_PREFIX = "MIG-"
"""Prefix of the UUID of a partition of a GPU (Multi-Instance GPU)."""

_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class Gpu(BaseModel):
    uuid: str
    name: str
    memory_bytes: int | None
    """Memory of the GPU; None if it shares the machine's memory."""
    compute_capability: tuple[int, int]
    """CUDA compute capability; an A100 has (8, 0)."""


class ExternalProcess(BaseModel):
    """A process of another program that uses a GPU."""

    pid: int | None
    """Process id; None if it is unknown."""
    name: str
    memory_bytes: int | None


class Disk(BaseModel):
    """The disk that attempts on a machine write to."""

    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    """With fewer free bytes no attempt starts."""
    low: bool
    """True from when too few bytes are free until somewhat more than the reserve are."""


class OfferedProfile(BaseModel):
    """A way to run jobs on a cluster, as its operator has named and described it."""

    name: str
    node: "Machine"
    """Each of the cluster's machines that it may use."""
    max_nodes: int
    max_jobs: int
    """Most jobs at once in the cluster's queue."""


class Machine(BaseModel):
    gpus: list[Gpu]
    """GPUs that a trainer sees. A machine with GPUs never trains on its CPU."""
    cores: int
    cpu_bf16: bool
    """True if the CPU computes in bfloat16."""
    slots: int = 1
    """Maximum jobs at once on a machine without GPUs; they share its cores."""
    unusable: str | None = None
    """Why no trainer can use the GPUs; None if nothing is known against it."""
    memory_bytes: int | None = None
    """Memory of the machine itself, which a machine without GPUs trains in; None if its worker has not reported it."""
    profile: str | None = None
    """Name of the profile whose node it is; None for a machine with a worker of its own."""
    profiles: list[OfferedProfile] = []
    """Profiles by which its worker hands jobs to a cluster, instead of training on this machine. Each job takes one of
    the `slots`, which are those of the first profile, then those of the second, and so on."""

    @property
    def devices(self) -> int:
        """Number of devices for jobs: GPUs, or CPU slots on a machine without GPUs, or places in a cluster's queue."""
        return len(self.gpus) or self.slots

    @property
    def unit(self) -> str:
        """Word for one device."""
        return "queue place" if self.profiles else "GPU" if self.gpus else "CPU slot"

    def profile_of(self, device: int) -> OfferedProfile | None:
        """The profile of one of its places in a cluster's queue."""
        for offered in self.profiles:
            if device < offered.max_jobs:
                return offered
            device -= offered.max_jobs
        return None

    def nodes_for(self, recipe: Recipe) -> list["Machine"]:
        """The machines that it offers to the recipe: itself, or the nodes of the profile that the recipe names."""
        profile = recipe.resources.profile
        if self.profiles:
            offers = [offered for offered in self.profiles if offered.name == profile]
            return [offered.node for offered in offers for _ in range(offered.max_nodes)]
        return [self] if self.profile == profile else []

    def devices_needed(self, recipe: Recipe) -> int:
        """Number of devices that the recipe takes on this machine."""
        if self.profiles:
            return 1
        gpus = recipe.resources.gpus
        return gpus if self.gpus else min(gpus, self.slots)

    def unusable_devices(self, reason: str) -> dict[int, list[ExternalProcess]]:
        """What keeps jobs off all of its devices: `reason` takes the place of a process."""
        return {number: [ExternalProcess(pid=None, name=reason, memory_bytes=None)] for number in range(self.devices)}

    def describe(self) -> str:
        if self.profiles:
            return f"profiles {', '.join(offered.name for offered in self.profiles)}"
        names = [gpu.name for gpu in self.gpus]
        return ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names))) or f"CPU, {self.cores} cores"


def has_bf16(cpuinfo: str) -> bool:
    """Whether the CPUs in a /proc/cpuinfo compute in bfloat16. x86 lists "flags", ARM lists "Features"."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = next((value.split() for name, _, value in lines if name.strip() in ("flags", "Features")), [])
    return not _BF16_FLAGS.isdisjoint(flags)


def resolved_precision(recipe: Recipe, native_bf16: bool) -> str:
    """The recipe's precision on a device that computes in bfloat16 or does not: "auto" becomes "bf16" or "fp32"."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16" if native_bf16 else "fp32"


def machines_needed(recipe: Recipe) -> int:
    """Number of workers that run the recipe together. A cluster's nodes have none of their own."""
    return 1 if recipe.resources.profile else recipe.resources.nodes


def machines_for(recipe: Recipe, machines: Sequence[Machine]) -> list[Machine]:
    """The machines that the recipe may be trained on: those of the workers, or the nodes of the profile that it names.
    Raises InputError where no worker offers that profile, or where all want one to be named."""
    chosen = [node for machine in machines if not machine.profiles for node in machine.nodes_for(recipe)]
    # A job goes to one worker's offer: two workers with a profile do not add their nodes up.
    offers = [machine.nodes_for(recipe) for machine in machines if machine.profiles]
    offers.sort(key=lambda nodes: (sum(_trains(recipe, node) for node in nodes), len(nodes)))
    chosen += offers[-1] if offers else []
    profile, names = recipe.resources.profile, sorted({each.name for machine in machines for each in machine.profiles})
    if chosen or (profile is None and not names):
        return chosen
    there = f"the workers offer {', '.join(names)}" if names else "no worker that is there offers any"
    words = f'got "{profile}"; {there}' if profile else f"no worker trains on a machine of its own; {there}"
    raise InputError(FailureCode.DEVICES_UNAVAILABLE, f"resources.profile: {words}", "resources.profile")


class _Mismatch(NamedTuple):
    code: FailureCode
    param: str
    words: str


def check_machines(recipe: Recipe, machines: Sequence[Machine]) -> None:
    """Raises InputError if the recipe cannot be trained on `machines`. Does nothing if none is known."""
    machines = machines_for(recipe, machines)
    mismatches = [_mismatch(recipe, machine) for machine in machines]
    found = truncate("; ".join(sorted({machine.describe() for machine in machines})), 200)
    if mismatches and all(mismatches):
        code, param, words = next(lack for lack in mismatches if lack)
        raise InputError(code, f"{param}: {words}; the workers have: {found}", param)
    nodes, able = recipe.resources.nodes, mismatches.count(None)
    if mismatches and able < nodes:
        param = "resources.nodes"
        words = f"got {nodes}, each on a machine of its own, and {able} can train this; the workers have: {found}"
        raise InputError(FailureCode.DEVICES_UNAVAILABLE, f"{param}: {words}", param)


def check_machine(recipe: Recipe, machine: Machine) -> None:
    """Raises InputError if this machine cannot do its part of the recipe."""
    one = recipe.resources.model_copy(update={"nodes": 1})
    check_machines(recipe.model_copy(update={"resources": one}), [machine])


def usable_devices(recipe: Recipe, machine: Machine) -> frozenset[int]:
    """Numbers of the machine's devices that can train the recipe; none if there are too few."""
    if machine.profiles:
        places = ((number, machine.profile_of(number)) for number in range(machine.devices))
        return frozenset(number for number, offered in places if offered and _has_room(recipe, offered))
    if not _trains(recipe, machine):
        return frozenset()
    return frozenset(
        number for number in range(machine.devices) if not machine.gpus or _can_train(recipe, machine.gpus[number])
    )


def _has_room(recipe: Recipe, offered: OfferedProfile) -> bool:
    return recipe.resources.nodes <= offered.max_nodes and _trains(recipe, offered.node)


def _trains(recipe: Recipe, machine: Machine) -> bool:
    return machine.profile == recipe.resources.profile and _mismatch(recipe, machine) is None


def _can_train(recipe: Recipe, gpu: Gpu) -> bool:
    if not _supports(recipe.precision, gpu):
        return False
    return recipe.resources.gpus == 1 or not gpu.uuid.startswith(_MIG_PREFIX)


def _mismatch(recipe: Recipe, machine: Machine) -> _Mismatch | None:
    """A requirement of the recipe that the machine does not meet, or None."""
    processes = recipe.resources.gpus
    if machine.profile is not None and processes > machine.devices:
        words = f"got {processes}; a node of profile {machine.profile} runs {machine.devices} ranks"
        return _Mismatch(FailureCode.DEVICES_UNAVAILABLE, "resources.gpus", words)
    # CUDA shows a process only one partition of a GPU.
    whole = sum(not gpu.uuid.startswith(_MIG_PREFIX) for gpu in machine.gpus)
    if machine.gpus and processes > max(whole, 1):
        words = f"got {processes}; each rank needs its own GPU, on one machine"
        return _Mismatch(FailureCode.DEVICES_UNAVAILABLE, "resources.gpus", words)
    if recipe.precision == "bf16" and not _computes_in("bf16", machine, processes):
        words = (
            'got "bf16", in which GPUs compute from compute capability 8.0 on, and CPUs with AVX512-BF16, AMX or '
            'ARM\'s bf16; use "auto" or "fp32"'
        )
        return _Mismatch(FailureCode.PRECISION_UNAVAILABLE, "precision", words)
    if recipe.precision == "fp8" and not _computes_in("fp8", machine, processes):
        words = (
            'got "fp8", in which GPUs compute from compute capability 8.9 on (Ada, Hopper and newer), and no CPU; use '
            '"bf16" or "auto"'
        )
        return _Mismatch(FailureCode.PRECISION_UNAVAILABLE, "precision", words)
    if recipe.precision == "fp16" and recipe.parallel.engine == "deepspeed" and not machine.gpus:
        words = 'got "fp16", which DeepSpeed has on GPUs alone; use "auto" or "fp32", or parallel.engine "ddp"'
        return _Mismatch(FailureCode.PRECISION_UNAVAILABLE, "precision", words)
    return None


def _computes_in(precision: str, machine: Machine, processes: int) -> bool:
    if machine.gpus:
        return sum(_supports(precision, gpu) for gpu in machine.gpus) >= processes
    return precision == "bf16" and machine.cpu_bf16


def _supports(precision: str, gpu: Gpu) -> bool:
    return gpu.compute_capability >= _CAPABILITIES.get(precision, (0, 0))


def machine_warnings(recipe: Recipe, machines: Sequence[Machine]) -> list[str]:
    """Warnings about what works on `machines` but is a bad choice."""
    if recipe.precision == "fp16" and machines and not any(machine.gpus for machine in machines):
        return [
            'precision: got "fp16", which is 20 to 30 times slower than bf16 on a CPU; "auto" takes what is fastest'
        ]
    return []
