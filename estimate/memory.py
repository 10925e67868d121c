"""The most memory that a recipe takes on one device, by part."""

from dataclasses import dataclass
from typing import Any

from contract.machine import BF16_CAPABILITY, Machine, resolved_precision
from contract.model.loaded_names import Shapes
from contract.order import examples_per_step
from contract.recipe import Recipe
from estimate.activations import Row, activation_bytes
from estimate.adapter import Trained
from estimate.architecture import Architecture
from estimate.head import logits_bytes
from estimate.overhead import exchange_bytes, overhead_bytes
from estimate.states import states, zero_stage
from estimate.weights import base_bytes

TOLERANCE = 1.25
"""How far a measured peak may be from its estimate: the tests hold it."""


@dataclass(frozen=True)
class Model:
    """A base model, and what is trained of it."""

    shapes: Shapes
    config: dict[str, Any]
    architecture: Architecture
    trained: Trained


@dataclass(frozen=True)
class Place:
    """Where a rank runs."""

    on_gpu: bool
    precision: str
    """One of bf16, fp16, fp32."""
    memory_bytes: int | None
    """Of the device; of a CPU, this rank's part of the machine's. None where it is not known."""


@dataclass(frozen=True)
class Memory:
    """Bytes, at the end of a forward pass from the second step on."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication_buffers: int
    """What the ranks hold to exchange gradients and weights."""
    overhead: int
    """Of the process: on a GPU its context, on a CPU its libraries and what malloc keeps."""

    in_turn: bool
    """A step has one pass on one device: its gradients come as the activations go."""

    @property
    def total(self) -> int:
        lasting = self.weights + self.adapter + self.optimizer + self.communication_buffers + self.overhead
        passing = self.activations + self.logits
        return lasting + (max(self.gradients, passing) if self.in_turn else self.gradients + passing)


def memory(recipe: Recipe, model: Model, row: Row, place: Place, ranks: int) -> Memory:
    shapes, trained, precision = model.shapes, model.trained, place.precision
    held = states(recipe, trained, ranks)
    divides = recipe.parallel.engine == "fsdp" or zero_stage(recipe) == 3
    weights = base_bytes(recipe, precision, shapes) / (ranks if divides else 1)
    activations = activation_bytes(recipe, precision, place.on_gpu, model.architecture, trained, row)
    kept = recipe.model_copy(update={"gradient_checkpointing": False})
    freed = activation_bytes(kept, precision, place.on_gpu, model.architecture, trained, row)
    exchange = exchange_bytes(recipe, precision, place.on_gpu, shapes, trained, ranks)
    return Memory(
        weights=0 if recipe.parallel.offload_parameters and place.on_gpu else round(weights),
        adapter=round(held.adapter),
        gradients=round(held.gradients),
        optimizer=round(held.optimizer),
        activations=round(activations),
        logits=round(logits_bytes(precision, place.on_gpu, model.architecture, shapes, trained, row)),
        communication_buffers=round(exchange),
        overhead=round(overhead_bytes(place.on_gpu, freed)),
        in_turn=ranks == 1 and examples_per_step(recipe.batch, ranks) <= row.documents,
    )


def fits(memory: Memory, place: Place) -> bool | None:
    """None where the device's memory is not known, or so near that a measured peak may be on either side of it."""
    if place.memory_bytes is None:
        return None
    if memory.total * TOLERANCE <= place.memory_bytes:
        return True
    return False if memory.total / TOLERANCE > place.memory_bytes else None


def places(recipe: Recipe, machine: Machine) -> list[Place]:
    """The kinds of devices of a machine that could have a rank of it."""
    if not machine.gpus:
        ranks = machine.needs(recipe)
        own = None if machine.memory_bytes is None else machine.memory_bytes // ranks
        return [Place(False, resolved_precision(recipe, machine.cpu_bf16), own)]
    found = {
        Place(
            True,
            resolved_precision(recipe, gpu.compute_capability >= BF16_CAPABILITY),
            gpu.memory_bytes or machine.memory_bytes,
        )
        for gpu in machine.gpus
    }
    return sorted(found, key=lambda place: -(place.memory_bytes or 0))
