"""What a machine has to train with, and whether a recipe can be trained on it."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.quote import cut
from contract.recipe import Recipe

BF16_CAPABILITY = (8, 0)
"""Of GPUs that compute in bfloat16, Ampere and newer; older ones emulate it, slower than fp32."""


_MIG = "MIG-"
"""Begins the UUID of an instance of a GPU that is divided (Multi-Instance GPU)."""

_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class Gpu(BaseModel):
    uuid: str
    name: str
    memory_bytes: int | None
    """None where it shares the machine's memory."""
    compute_capability: tuple[int, int]
    """CUDA's: (8, 0) is that of an A100."""


class ExternalProcess(BaseModel):
    """A process that is not ours, and uses a GPU."""

    pid: int | None
    """None where it cannot be told."""
    name: str
    memory_bytes: int | None


class Machine(BaseModel):
    gpus: list[Gpu]
    """Those that a trainer sees. Where there is one, no trainer runs on the CPU."""
    cores: int
    cpu_bf16: bool
    """The CPU computes in bfloat16."""
    slots: int = 1
    """Jobs at once where there is no GPU; they divide the cores."""
    memory_bytes: int | None = None
    """Of the machine itself, which trains where there is no GPU; None where its worker has not told."""

    @property
    def devices(self) -> int:
        """What is given to jobs: the GPUs, by number, or CPU slots in their stead."""
        return len(self.gpus) or self.slots

    def needs(self, recipe: Recipe) -> int:
        """Devices that the recipe takes here."""
        gpus = recipe.resources.gpus
        return gpus if self.gpus else min(gpus, self.slots)

    def describe(self) -> str:
        names = [gpu.name for gpu in self.gpus]
        return ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names))) or f"CPU, {self.cores} cores"


def has_bf16(cpuinfo: str) -> bool:
    """Whether the CPUs of a /proc/cpuinfo compute in bfloat16: x86 lists "flags", ARM lists "Features"."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = next((value.split() for name, _, value in lines if name.strip() in ("flags", "Features")), [])
    return not _BF16_FLAGS.isdisjoint(flags)


def resolved_precision(recipe: Recipe, native_bf16: bool) -> str:
    """The format of the base's weights, "bf16", "fp16" or "fp32", on a device that computes in bfloat16 or does not."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16" if native_bf16 else "fp32"


class _Lack(NamedTuple):
    code: FailureCode
    param: str
    words: str


def check_machines(recipe: Recipe, machines: Sequence[Machine]) -> None:
    """Raises InputError when the service cannot train the recipe on `machines`. Where none is known, nothing is said of
    them."""
    lacks = [_lack(recipe, machine) for machine in machines]
    found = cut("; ".join(sorted({machine.describe() for machine in machines})), 200)
    if lacks and all(lacks):
        code, param, words = next(lack for lack in lacks if lack)
        raise InputError(code, f"{param}: {words}; the workers have: {found}", param)
    nodes, able = recipe.resources.nodes, lacks.count(None)
    if lacks and able < nodes:
        param = "resources.nodes"
        words = f"got {nodes}, each on a machine of its own, and {able} can train this; the workers have: {found}"
        raise InputError(FailureCode.DEVICES_UNAVAILABLE, f"{param}: {words}", param)


def check_machine(recipe: Recipe, machine: Machine) -> None:
    """Raises InputError when this machine cannot do its part of the recipe."""
    one = recipe.resources.model_copy(update={"nodes": 1})
    check_machines(recipe.model_copy(update={"resources": one}), [machine])


def usable(recipe: Recipe, machine: Machine) -> frozenset[int]:
    """The numbers of the machine's devices that can train the recipe; none where there are too few."""
    if _lack(recipe, machine):
        return frozenset()
    return frozenset(
        number for number in range(machine.devices) if not machine.gpus or _does(recipe, machine.gpus[number])
    )


def _does(recipe: Recipe, gpu: Gpu) -> bool:
    if recipe.precision == "bf16" and not _has_bf16(gpu):
        return False
    return recipe.resources.gpus == 1 or not gpu.uuid.startswith(_MIG)


def _lack(recipe: Recipe, machine: Machine) -> _Lack | None:
    """What the machine has not, and the recipe wants."""
    processes = recipe.resources.gpus
    # CUDA shows a process one instance of a divided GPU.
    whole = sum(not gpu.uuid.startswith(_MIG) for gpu in machine.gpus)
    if machine.gpus and processes > max(whole, 1):
        words = f"got {processes}; each rank wants a GPU of its own, on one machine"
        return _Lack(FailureCode.DEVICES_UNAVAILABLE, "resources.gpus", words)
    if recipe.precision == "bf16" and not _computes_in_bf16(machine, processes):
        words = (
            'got "bf16", in which GPUs compute from compute capability 8.0 on, and CPUs with AVX512-BF16, AMX or '
            'ARM\'s bf16; use "auto" or "fp32"'
        )
        return _Lack(FailureCode.PRECISION_UNAVAILABLE, "precision", words)
    if recipe.precision == "fp16" and recipe.parallel.engine == "deepspeed" and not machine.gpus:
        words = 'got "fp16", which DeepSpeed has on GPUs alone; use "auto" or "fp32", or parallel.engine "ddp"'
        return _Lack(FailureCode.PRECISION_UNAVAILABLE, "precision", words)
    return None


def _computes_in_bf16(machine: Machine, processes: int) -> bool:
    if machine.gpus:
        return sum(map(_has_bf16, machine.gpus)) >= processes
    return machine.cpu_bf16


def _has_bf16(gpu: Gpu) -> bool:
    return gpu.compute_capability >= BF16_CAPABILITY


def unwise(recipe: Recipe, machines: Sequence[Machine]) -> list[str]:
    """What would work on `machines`, and is unwise."""
    if recipe.precision == "fp16" and machines and not any(machine.gpus for machine in machines):
        return [
            'precision: got "fp16", which is 20 to 30 times slower than bf16 on a CPU; "auto" takes what is fastest'
        ]
    return []
