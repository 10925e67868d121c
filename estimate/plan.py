"""A recipe's plan, from everything that is known before it trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contract.machine import Machine, usable_devices
from contract.model.folder import LoadedBase
from contract.model.loaded_names import Shapes
from contract.recipe import Adapter, Recipe
from estimate.adapter import TrainedParameters, trained_parameters
from estimate.architecture import Architecture, NotEstimated, count_parameters, read_architecture
from estimate.disk import DiskEstimate, estimate_disk
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.memory import MemoryEstimate, device_kinds, estimate_memory, fits
from estimate.stored_base import StoredBase, kept_bytes, stored_base
from estimate.suggestions import Patch, suggestions_that_fit
from estimate.work import LengthCounts, TrainingWork, largest_row, training_work, usable_lengths


@dataclass(frozen=True)
class LocalModel:
    """A base model that is on the server."""

    shapes: Shapes
    config: dict[str, Any]
    trained: TrainedParameters
    architecture: Architecture | None
    unknown_because: str | None
    """Why the architecture is unknown, if it is."""
    loaded: LoadedBase | None = None
    """What its shapes and configuration are from."""

    @property
    def parameters(self) -> int:
        """Number of parameters, including those added for training."""
        return count_parameters(self.shapes) + self.trained.added


@dataclass(frozen=True)
class DeviceEstimate:
    """An estimate for one kind of device of the workers' machines."""

    device: str
    """The GPU's name, or "CPU"."""
    kind: DeviceKind
    ranks: int
    memory: MemoryEstimate
    fits: bool | None
    """None if the estimate is too close to the memory to decide, or if the memory is unknown."""
    suggestions: list[Patch] = field(default_factory=list)
    """Changes to the recipe, each of which makes it fit; empty if it already fits."""


@dataclass(frozen=True)
class RunPlan:
    work: TrainingWork
    disk: DiskEstimate | None
    devices: list[DeviceEstimate]
    unknown: dict[str, str]
    """Why parts of the plan are missing, by their names."""
    base: StoredBase | None = None
    """How a base is loaded whose files are quantised."""


def adapted_base(base: LoadedBase, adapter: Adapter, earlier: Path | None) -> LocalModel:
    """`earlier` is the folder of adapter.start_from. Raises NotEstimated."""
    shapes, config = base.shapes, base.config
    try:
        found = trained_parameters(adapter, shapes, config, earlier)
    except (OSError, ValueError) as error:
        raise NotEstimated("the earlier adapter cannot be read") from error
    try:
        return LocalModel(shapes, config, found, read_architecture(config, shapes), None, base)
    except NotEstimated as error:
        return LocalModel(shapes, config, found, None, str(error), base)


def plan_run(
    recipe: Recipe,
    examples: int,
    machines: Sequence[Machine],
    base: LocalModel | str,
    lengths: LengthCounts | str,
) -> RunPlan:
    """`base` and `lengths` are a reason if they are unknown. Raises InputError if the split leaves no example to train
    on."""
    unknown: dict[str, str] = {}
    usable = None
    if isinstance(lengths, str):
        unknown["tokens"] = lengths
    elif not (usable := usable_lengths(lengths, recipe.batch.max_length)):
        unknown["tokens"] = "no example has an answer within batch.max_length"
    resources = recipe.resources
    work = training_work(
        recipe, examples, usable, _ranks(recipe, machines[0]) if machines else resources.gpus * resources.nodes
    )
    if isinstance(base, str):
        unknown |= {"parameters": base, "memory": base, "disk": base}
        return RunPlan(work, None, [], unknown)
    disk = estimate_disk(recipe, base.trained, work, resources.gpus * resources.nodes, count_parameters(base.shapes))
    stored = stored_base(recipe, base.loaded) if base.loaded else None
    if base.architecture is None:
        return RunPlan(work, disk, [], {**unknown, "memory": base.unknown_because or ""}, stored)
    if not machines:
        return RunPlan(work, disk, [], {**unknown, "memory": "no worker has reported its machine"}, stored)
    if not usable:
        # No dataset exceeds this.
        unknown["memory"] = "the lengths of the examples are not known: each is assumed to have batch.max_length tokens"
    kept = kept_bytes(base.loaded) if base.loaded else {}
    model = SizedModel(base.shapes, base.config, base.architecture, base.trained, kept)
    devices = plan_devices(recipe, machines, model, None if isinstance(lengths, str) else lengths)
    return RunPlan(work, disk, devices, unknown, stored)


def plan_devices(
    recipe: Recipe, machines: Sequence[Machine], model: SizedModel, lengths: LengthCounts | None
) -> list[DeviceEstimate]:
    """One estimate per kind of device that can train the recipe at all, the largest first."""
    found: dict[tuple[str, DeviceKind, int], DeviceEstimate] = {}
    for machine in machines:
        names = {gpu.memory_bytes or machine.memory_bytes: gpu.name for gpu in machine.gpus}
        for kind in device_kinds(recipe, machine) if usable_devices(recipe, machine) else []:
            name = names[kind.memory_bytes] if kind.on_gpu else "CPU"
            key = (name, kind, _ranks(recipe, machine))
            if key not in found:
                estimate = _estimate_device(recipe, model, lengths, machine, kind)
                found[key] = replace(estimate, device=name)
    return sorted(found.values(), key=lambda estimate: -(estimate.kind.memory_bytes or 0))


def _estimate_device(
    recipe: Recipe, model: SizedModel, lengths: LengthCounts | None, machine: Machine, kind: DeviceKind
) -> DeviceEstimate:
    ranks = _ranks(recipe, machine)
    memory = estimate_memory(recipe, model, _row(recipe, lengths, ranks), kind, ranks)
    estimate = DeviceEstimate("", kind, ranks, memory, fits(memory, kind))
    if estimate.fits is not False:
        return estimate

    def fits_changed(changed: Recipe) -> bool:
        others = _ranks(changed, machine)
        shared = replace(kind, memory_bytes=_share(kind, machine, changed))
        needed = estimate_memory(changed, model, _row(changed, lengths, others), shared, others)
        return fits(needed, shared) is not False

    keeps_bits = bool(model.stored_bytes)
    suggestions = suggestions_that_fit(recipe, ranks, len(machine.gpus), fits_changed, keeps_bits=keeps_bits)
    return replace(estimate, suggestions=suggestions)


def _share(kind: DeviceKind, machine: Machine, recipe: Recipe) -> int | None:
    if kind.on_gpu or machine.memory_bytes is None:
        return kind.memory_bytes
    return machine.memory_bytes // machine.devices_needed(recipe)


def _ranks(recipe: Recipe, machine: Machine) -> int:
    return machine.devices_needed(recipe) * recipe.resources.nodes


def _row(recipe: Recipe, lengths: LengthCounts | None, ranks: int) -> PackedRow:
    usable = usable_lengths(lengths, recipe.batch.max_length) if lengths is not None else []
    if lengths is not None and usable:
        return largest_row(recipe, usable, lengths.supervised_fraction, ranks)
    documents = 1 if recipe.batch.micro_batch_size == "auto" else recipe.batch.micro_batch_size
    documents *= recipe.method.documents
    return PackedRow(documents * recipe.batch.max_length, documents, documents * recipe.batch.max_length)
