"""The peak memory of a recipe on one device, by part."""

from dataclasses import dataclass

from contract.machine import BF16_CAPABILITY, Machine, resolved_precision
from contract.order import examples_per_step
from contract.recipe import Recipe
from estimate.activations import activation_bytes
from estimate.head import logits_bytes
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.overhead import communication_bytes, overhead_bytes
from estimate.states import state_bytes, zero_stage
from estimate.weights import base_bytes

TOLERANCE = 1.25
"""Maximum ratio between a measured peak and its estimate; tests check it."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the end of a forward pass, from the second step on."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication_buffers: int
    """What ranks hold to communicate gradients and weights."""
    overhead: int
    """Overhead of the process: its context on a GPU; libraries and memory that malloc keeps on a CPU."""

    in_turn: bool
    """True if a step has one pass on one device, so that gradients appear as activations are freed."""

    @property
    def total(self) -> int:
        lasting = self.weights + self.adapter + self.optimizer + self.communication_buffers + self.overhead
        passing = self.activations + self.logits
        return lasting + (max(self.gradients, passing) if self.in_turn else self.gradients + passing)


def estimate_memory(recipe: Recipe, model: SizedModel, row: PackedRow, kind: DeviceKind, ranks: int) -> MemoryEstimate:
    trained = state_bytes(recipe, model.trained, ranks)
    shards = recipe.parallel.engine == "fsdp" or zero_stage(recipe) == 3
    weights = base_bytes(recipe.base_bits, kind.precision, model.shapes, model.stored_bytes)
    if shards:
        weights /= ranks
    without_checkpointing = recipe.model_copy(update={"gradient_checkpointing": False})
    freed = activation_bytes(without_checkpointing, kind, model, row)
    kept = activation_bytes(recipe, kind, model, row) if recipe.gradient_checkpointing else freed
    return MemoryEstimate(
        weights=0 if recipe.parallel.offload_parameters and kind.on_gpu else round(weights),
        adapter=round(trained.adapter),
        gradients=round(trained.gradients),
        optimizer=round(trained.optimizer),
        activations=round(kept),
        logits=round(logits_bytes(kind, model, row)),
        communication_buffers=round(communication_bytes(recipe, kind, model, ranks)),
        overhead=round(overhead_bytes(kind.on_gpu, freed)),
        in_turn=ranks == 1 and examples_per_step(recipe.batch, ranks) <= row.documents,
    )


def fits(memory: MemoryEstimate, kind: DeviceKind) -> bool | None:
    """None if the device's memory is unknown, or so close that a measured peak may be on either side of it."""
    if kind.memory_bytes is None:
        return None
    if memory.total * TOLERANCE <= kind.memory_bytes:
        return True
    return False if memory.total / TOLERANCE > kind.memory_bytes else None


def device_kinds(recipe: Recipe, machine: Machine) -> list[DeviceKind]:
    """The kinds of devices on a machine that a rank may run on."""
    if not machine.gpus:
        ranks = machine.devices_needed(recipe)
        own = None if machine.memory_bytes is None else machine.memory_bytes // ranks
        return [DeviceKind(False, resolved_precision(recipe, machine.cpu_bf16), own)]
    found = {
        DeviceKind(
            True,
            resolved_precision(recipe, gpu.compute_capability >= BF16_CAPABILITY),
            gpu.memory_bytes or machine.memory_bytes,
        )
        for gpu in machine.gpus
    }
    return sorted(found, key=lambda kind: -(kind.memory_bytes or 0))
