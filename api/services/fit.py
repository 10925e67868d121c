"""Whether a recipe can fit into the memory of any worker's machine, and what is known to tell it by."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from api.services.earlier import earlier_of
from api.settings import ApiSettings
from contract.failure import FailureReason, InputError
from contract.locate import locate_model
from contract.machine import Machine
from contract.model.folder import weight_shapes
from contract.recipe import Dataset, Recipe
from dataset.lengths import Lengths as Measured
from dataset.sandbox import Busy, DatasetSandbox, TooMuch
from estimate.architecture import Unknown
from estimate.plan import Base, OnDevice, make_plan, read_base
from estimate.work import Lengths
from store import datasets
from store.access.principal import Principal
from store.session import Sessions

_MEASURE_WITHIN = 15.0  # seconds; of a larger file the first examples are measured
_LONGEST_LOOK = 45.0
_MOST_CHANGES = 3  # told in a refusal


def refuse_what_cannot_fit(
    sessions: Sessions,
    settings: ApiSettings,
    sandbox: DatasetSandbox,
    who: Principal,
    recipe: Recipe,
    rows: int,
    machines: Sequence[Machine],
) -> None:
    """`recipe` has been checked, and has so many examples. Raises InputError where it fits on no machine of `machines`.
    What is not known refuses nothing."""
    base = base_of(sessions, settings, who, recipe)
    if isinstance(base, str) or base.architecture is None or not machines:
        return
    # First as if every example had max_length tokens: then most need no look at the dataset.
    if _misfits(recipe, rows, machines, base, "") is None:
        return
    lengths = lengths_of(sessions, settings, sandbox, recipe, rows)
    misfits = None if isinstance(lengths, str) else _misfits(recipe, rows, machines, base, lengths)
    if misfits is not None:
        raise _refusal(misfits[0])


def _misfits(
    recipe: Recipe, rows: int, machines: Sequence[Machine], base: Base, lengths: Lengths | str
) -> list[OnDevice] | None:
    """The devices, the largest first, where it fits on none of them."""
    devices = make_plan(recipe, rows, machines, base, lengths).devices
    return devices if devices and all(on.fits is False for on in devices) else None


def _refusal(on: OnDevice) -> InputError:
    param, largest = _largest(on)
    changes = " or ".join(json.dumps(change) for change in on.changes[:_MOST_CHANGES])
    message = (
        f"it would take about {_gib(on.memory.total)} on each device, {_gib(largest)} of it for {param[1]}, and the "
        f"largest, {on.device}, has {_gib(on.place.memory_bytes or 0)}; "
        + (f"it would fit with {changes}" if changes else "no change of batch, base_bits or devices makes it fit")
        + "; force=true takes it as it is"
    )
    return InputError(FailureReason.DOES_NOT_FIT, f"{param[0]}: {message}", param[0])


def _largest(on: OnDevice) -> tuple[tuple[str, str], int]:
    """The part that takes most: the field of the recipe that it comes of and its name, and its bytes."""
    memory = on.memory
    parts = {
        ("model", "the base's weights"): memory.weights,
        ("adapter", "what is trained"): memory.adapter + memory.gradients + memory.optimizer,
        ("batch", "activations and logits"): memory.activations + memory.logits,
        ("parallel", "the exchange between devices"): memory.exchange,
    }
    return max(parts.items(), key=lambda part: part[1])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def base_of(sessions: Sessions, settings: ApiSettings, who: Principal, recipe: Recipe) -> Base | str:
    """Why it is not known, where it is not."""
    folder = locate_model(recipe.model, settings.folders)
    if folder is None:
        return f"{recipe.model} is not on the server, and its files tell what it takes"
    given = recipe.adapter.start_from
    try:
        with nullcontext() if given is None else earlier_of(sessions, settings, who, given) as earlier:
            return read_base(folder, weight_shapes(folder), recipe, earlier)
    except Unknown as error:
        return str(error)


def lengths_of(
    sessions: Sessions, settings: ApiSettings, sandbox: DatasetSandbox, recipe: Recipe, rows: int
) -> Lengths | str:
    """By the model's own tokenizer and template. Why they are not known, where they are not. Raises InputError for an
    example that these refuse."""
    model = locate_model(recipe.model, settings.folders)
    if model is None:
        return f"{recipe.model} is not on the server, nor its tokenizer"
    if not (model / "tokenizer.json").is_file():
        return f"{recipe.model} has no tokenizer.json"
    given = recipe.dataset
    with datasets.find_file(sessions, settings, given.path) as path:
        return _measured(sandbox, path, given, model, rows)


def _measured(sandbox: DatasetSandbox, path: Path, given: Dataset, model: Path, rows: int) -> Lengths | str:
    try:
        answer = sandbox.run(
            "measure",
            _LONGEST_LOOK,
            path=str(path),
            name=given.filename or path.name,
            format=given.format,
            columns=given.columns,
            model=str(model),
            chat_template=given.chat_template,
            most_seconds=_MEASURE_WITHIN,
        )
    except TooMuch as error:
        return error.failure.message
    except Busy:
        return "as many datasets are being read as the service reads at once"
    found = Measured.model_validate(answer)
    if found.problems:
        raise InputError(FailureReason.DATASET_INVALID, found.problems[0].message, "dataset")
    return Lengths(found.longest, found.first, found.supervised / max(1, found.tokens), rows)
