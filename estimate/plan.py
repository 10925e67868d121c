"""A recipe's plan, from all that is known before it trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contract.machine import Machine, usable
from contract.model.folder import LoadedBase
from contract.model.loaded_names import Shapes
from contract.recipe import Adapter, Recipe
from estimate.activations import Row
from estimate.adapter import Trained, trained
from estimate.architecture import Architecture, Unknown, count, read_architecture
from estimate.changes import Patch, changes_that_fit
from estimate.disk import Disk, disk
from estimate.memory import Memory, Model, Place, fits, memory, places
from estimate.work import Lengths, Work, largest_row, usable_lengths, work


@dataclass(frozen=True)
class Base:
    """A base model that is on the server."""

    shapes: Shapes
    config: dict[str, Any]
    trained: Trained
    architecture: Architecture | None
    why_not: str | None
    """Where there is no architecture."""

    @property
    def parameters(self) -> int:
        """With what is trained beside it."""
        return count(self.shapes) + self.trained.added


@dataclass(frozen=True)
class OnDevice:
    """On one kind of device of the workers' machines."""

    device: str
    """The GPU's name, or "CPU"."""
    place: Place
    ranks: int
    memory: Memory
    fits: bool | None
    """None where the estimate is too near to the memory to say, or that is not known."""
    suggestions: list[Patch] = field(default_factory=list)
    """Parts of a recipe, after each of which it fits; none where it fits as it is."""


@dataclass(frozen=True)
class Plan:
    work: Work
    disk: Disk | None
    devices: list[OnDevice]
    unknown: dict[str, str]
    """Why a part is not told."""


def adapted_base(base: LoadedBase, adapter: Adapter, earlier: Path | None) -> Base:
    """`earlier` is the folder of adapter.start_from. Raises Unknown."""
    shapes, config = base.shapes, base.config
    try:
        found = trained(adapter, shapes, config, earlier)
    except (OSError, ValueError) as error:
        raise Unknown("the earlier adapter cannot be read") from error
    try:
        return Base(shapes, config, found, read_architecture(config, shapes), None)
    except Unknown as error:
        return Base(shapes, config, found, None, str(error))


def make_plan(
    recipe: Recipe,
    examples: int,
    machines: Sequence[Machine],
    base: Base | str,
    lengths: Lengths | str,
) -> Plan:
    """`base` and `lengths` are why they are not known, where they are not. Raises InputError where the split leaves no
    example to train on."""
    unknown: dict[str, str] = {}
    cut = None
    if isinstance(lengths, str):
        unknown["tokens"] = lengths
    elif not (cut := usable_lengths(lengths, recipe.batch.max_length)):
        unknown["tokens"] = "no example has an answer within batch.max_length"
    wanted = recipe.resources
    done = work(recipe, examples, cut, _ranks(recipe, machines[0]) if machines else wanted.gpus * wanted.nodes)
    if isinstance(base, str):
        unknown |= {"parameters": base, "memory": base, "disk": base}
        return Plan(done, None, [], unknown)
    room = disk(recipe, base.trained, done.steps, wanted.gpus * wanted.nodes, count(base.shapes))
    if base.architecture is None:
        return Plan(done, room, [], {**unknown, "memory": base.why_not or ""})
    if not machines:
        return Plan(done, room, [], {**unknown, "memory": "no worker has told what its machine has"})
    if not cut:
        # What no dataset exceeds.
        unknown["memory"] = "the lengths of the examples are not known: each is taken to have batch.max_length tokens"
    model = Model(base.shapes, base.config, base.architecture, base.trained)
    return Plan(done, room, on_devices(recipe, machines, model, None if isinstance(lengths, str) else lengths), unknown)


def on_devices(recipe: Recipe, machines: Sequence[Machine], model: Model, lengths: Lengths | None) -> list[OnDevice]:
    """One for each kind of device that can train the recipe at all, the largest first."""
    found: dict[tuple[str, Place, int], OnDevice] = {}
    for machine in machines:
        names = {gpu.memory_bytes or machine.memory_bytes: gpu.name for gpu in machine.gpus}
        for place in places(recipe, machine) if usable(recipe, machine) else []:
            name = names[place.memory_bytes] if place.on_gpu else "CPU"
            ranks = _ranks(recipe, machine)
            if (name, place, ranks) not in found:
                found[name, place, ranks] = _on_device(recipe, model, lengths, machine, name, place, ranks)
    return sorted(found.values(), key=lambda on: -(on.place.memory_bytes or 0))


def _on_device(
    recipe: Recipe, model: Model, lengths: Lengths | None, machine: Machine, name: str, place: Place, ranks: int
) -> OnDevice:
    taken = memory(recipe, model, _row(recipe, lengths, ranks), place, ranks)
    on = OnDevice(name, place, ranks, taken, fits(taken, place))
    if on.fits is not False:
        return on

    def fits_changed(changed: Recipe) -> bool:
        others = _ranks(changed, machine)
        there = replace(place, memory_bytes=_share(place, machine, changed))
        return fits(memory(changed, model, _row(changed, lengths, others), there, others), there) is not False

    devices = len(machine.gpus)
    return replace(on, suggestions=changes_that_fit(recipe, ranks, devices, fits_changed))


def _share(place: Place, machine: Machine, recipe: Recipe) -> int | None:
    if place.on_gpu or machine.memory_bytes is None:
        return place.memory_bytes
    return machine.memory_bytes // machine.needs(recipe)


def _ranks(recipe: Recipe, machine: Machine) -> int:
    return machine.needs(recipe) * recipe.resources.nodes


def _row(recipe: Recipe, lengths: Lengths | None, ranks: int) -> Row:
    cut = usable_lengths(lengths, recipe.batch.max_length) if lengths is not None else []
    if lengths is not None and cut:
        return largest_row(recipe, cut, lengths.supervised_fraction, ranks)
    documents = 1 if recipe.batch.micro_batch_size == "auto" else recipe.batch.micro_batch_size
    return Row(documents * recipe.batch.max_length, documents, documents * recipe.batch.max_length)
