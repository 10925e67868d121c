"""The state of a run after a step: all that it needs to go on as if it had never stopped. No pickle.

The same for every engine: whole tensors by the names of the parameters, so that a run may go on in another one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load, save_file

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from contract.run_dir import RunDir, forget, is_as_sealed, saved_states, seal
from trainer.data.examples import Data
from trainer.durable import whole_folder
from trainer.engines.engine import Engine
from trainer.saving.fence import check_not_superseded

_ADAPTER = "adapter.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_RANDOM = "random.safetensors"
_POSITION = "position.json"


@dataclass(frozen=True)
class Position:
    """Where a run stands, beside its weights."""

    examples: int
    """Of the training split. With `window` it says which ones each step takes."""
    window: int
    """Examples of one optimizer step, on all ranks."""
    micro_batch: int
    """A recipe's "auto" is resolved once."""
    course: str
    """A digest of the examples, their order and the schedule: see `course`."""
    step: int = 0
    loss_sum: float = 0.0
    """Of all supervised tokens so far, in nats."""
    tokens: int = 0
    """So many."""
    skipped_steps: int = 0
    """For an overflow in fp16."""
    eval_loss: float | None = None
    """The last one."""
    eval_step: int | None = None
    best_loss: float | None = None
    """The lowest one, the base model's included."""
    best_step: int | None = None
    evaluations_since_best: int = 0
    scaler: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of the loss scale, in fp16."""


def save_state(run: RunDir, position: Position, engine: Engine, accelerator: Accelerator, keep: int) -> None:
    """Writes the state after a step, whole or not at all, and forgets all but the `keep` newest. All ranks call it:
    each has random numbers and parts of its own; rank 0 writes."""
    random = _random_states(accelerator)
    adapter, optimizer = engine.adapter(), engine.optimizer_state()
    position = dataclasses.replace(position, scaler=engine.scaler_state())
    folder = run.state(position.step)
    if not accelerator.is_main_process or folder.exists():
        return
    check_not_superseded(run)
    with whole_folder(folder) as beside:
        save_file(_contiguous(adapter), beside / _ADAPTER)
        save_file(_contiguous(optimizer), beside / _OPTIMIZER)
        save_file(random, beside / _RANDOM)
        (beside / _POSITION).write_text(json.dumps(dataclasses.asdict(position)))
        seal(beside)
    for old in saved_states([run])[keep:]:
        check_not_superseded(run)
        forget(old)


def read_position(state: Path) -> Position:
    """Raises RuntimeError for a file that is not as it was written."""
    return Position(**json.loads(_read(state, _POSITION)))


def _load(state: Path, file: str) -> dict[str, torch.Tensor]:
    # In one order on every rank: safetensors' is another in each process, and an engine may exchange them one by one.
    return dict(sorted(load(_read(state, file)).items()))


def _read(state: Path, file: str) -> bytes:
    if not is_as_sealed(state / file):
        raise RuntimeError(f"{state.name}/{file} is damaged: go on from an earlier state, or without one")
    return (state / file).read_bytes()


def course(recipe: Recipe, data: Data) -> str:
    """A digest of what each step takes and of its learning rate. Not of how the ranks share it: that may change."""
    parts = {"seed": recipe.seed, "data": data.digest, "schedule": recipe.schedule.model_dump()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_position(position: Position, start: Position) -> None:
    """`start` is where the run would begin by itself. Raises InputError where a step would not take the examples that
    it took in the run before."""
    before, now = ((each.examples, each.window) for each in (position, start))
    if before != now:
        raise InputError(
            FailureCode.RECIPE_INVALID,
            "the run cannot go on from its last state: that was made with {} training examples in steps of {}, and now "
            "there are {} in steps of {}; use as many devices as before, or submit the recipe anew with "
            "batch.effective_batch_size, which is the same on any number of devices".format(*before, *now),
        )
    if position.course != start.course:
        raise InputError(
            FailureCode.RECIPE_INVALID,
            "the run cannot go on from its last state: that was made with other examples or in another order, or by "
            "another schedule; leave dataset, evaluation.fraction, batch.max_length, schedule and seed as they were",
        )


def load_adapter(state: Path, model: torch.nn.Module) -> None:
    """Puts what is trained back to where it stood. `model` is the PEFT model, before an engine has taken it. Raises
    InputError where it trains something else."""
    saved = _load(state, _ADAPTER)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if _shapes(saved) != _shapes(trained):
        raise InputError(
            FailureCode.RECIPE_INVALID,
            "the run cannot go on from its last state, which has an adapter of another shape; submit the recipe anew",
            "adapter",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_progress(state: Path, engine: Engine, accelerator: Accelerator) -> None:
    """Puts the optimizer, the loss scale and the random numbers back to where they stood."""
    engine.load(_load(state, _ADAPTER), _load(state, _OPTIMIZER))
    engine.load_scaler_state(read_position(state).scaler)
    random = _load(state, _RANDOM)
    rank = accelerator.process_index
    # A rank that was not there before starts with numbers of its own.
    if rank < len(random["cpu"]):
        set_random_state(accelerator.device, {name: states[rank] for name, states in random.items()})


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Of this rank's generators, by device: [bytes]."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    # Copies: given a row of a larger tensor, torch 2.13 reads beside it, and may crash.
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def _random_states(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """By device, [ranks, bytes]: all ranks must call this together."""
    return {
        name: accelerator.gather(state.to(accelerator.device)[None]).cpu().contiguous()
        for name, state in random_state(accelerator.device).items()
    }


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
