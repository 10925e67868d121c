"""The state of a run after a step: everything needed to continue as if it had never stopped. No pickle.

It is the same for every engine: whole tensors by parameter names, so a run may continue in another one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load, save_file

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from contract.run_dir import delete_state, is_verified, list_states, write_checksums
from trainer.data.examples import TrainingData
from trainer.durable import atomic_folder
from trainer.engines.engine import Engine
from trainer.run import TrainingRun
from trainer.saving.fence import check_not_superseded

_ADAPTER = "adapter.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_RANDOM = "random.safetensors"
_REFERENCE = "reference.safetensors"
"""Log probabilities before training, for a method that needs them."""
_POSITION = "position.json"
_KEYS = {"effective_batch_size": "window", "weight": "tokens"}
"""Fields whose key in position.json differs from their name."""
_EARLIER = "course"
"""Key of an earlier release's fingerprint, made of what the tokens came from. Later releases cannot make it again."""


@dataclass(frozen=True)
class TrainerState:
    """How far a run has got, apart from its weights."""

    examples: int
    """Number of training examples. With `effective_batch_size` it determines the examples of each step."""
    effective_batch_size: int
    """Examples of one optimizer step, on all ranks."""
    micro_batch: int
    """Examples in one pass on one rank; a recipe's "auto" is resolved once."""
    fingerprint: str | None
    """Digest of the examples, their order and the schedule; see `run_fingerprint`. None in a state of an earlier
    release, which is taken as it is: a job's recipe and its files do not change."""
    step: int = 0
    loss_sum: float = 0.0
    """Sum over all steps so far of the loss that each minimised, in nats."""
    weight: int = 0
    """What it is divided by: supervised tokens, or pairs, or rated answers."""
    skipped_steps: int = 0
    """Steps skipped for an overflow in fp16."""
    eval_loss: float | None = None
    """Loss of the last evaluation."""
    eval_accuracy: float | None = None
    """Its reward accuracy, for a method with rewards."""
    eval_margin: float | None = None
    """Its reward margin."""
    eval_step: int | None = None
    best_loss: float | None = None
    """Loss of the best evaluation, including the one before the first step."""
    best_accuracy: float | None = None
    """Its reward accuracy, if the method has rewards."""
    best_margin: float | None = None
    """Its reward margin."""
    best_step: int | None = None
    evaluations_since_best: int = 0
    scaler: dict[str, float] = dataclasses.field(default_factory=dict)
    """State of the loss scale, in fp16."""


def save_state(run: TrainingRun, state: TrainerState) -> None:
    """Writes the state after a step, completely or not at all, and deletes all but the newest. All ranks call it: each
    contributes random numbers and its shards, and rank 0 writes."""
    random = _random_states(run.accelerator)
    adapter, optimizer = run.engine.adapter(), run.engine.optimizer_state()
    state = dataclasses.replace(state, scaler=run.engine.scaler_state())
    folder = run.folder.state(state.step)
    if not run.accelerator.is_main_process or folder.exists():
        return
    check_not_superseded(run.folder)
    with atomic_folder(folder) as beside:
        save_file(_contiguous(adapter), beside / _ADAPTER)
        save_file(_contiguous(optimizer), beside / _OPTIMIZER)
        save_file(random, beside / _RANDOM)
        if run.recipe.method.needs_reference:
            save_file(run.data.reference, beside / _REFERENCE)
        (beside / _POSITION).write_text(json.dumps(_to_json(state)))
        write_checksums(beside)
    for old in list_states([run.folder])[run.recipe.checkpointing.keep_training_checkpoints :]:
        check_not_superseded(run.folder)
        delete_state(old)


def read_state(folder: Path) -> TrainerState:
    """Raises RuntimeError for a file that differs from what was written."""
    fields = {key: field for field, key in _KEYS.items()}
    written = {"fingerprint": None} | json.loads(_read(folder, _POSITION))
    return TrainerState(**{fields.get(key, key): value for key, value in written.items() if key != _EARLIER})


def _to_json(state: TrainerState) -> dict[str, Any]:
    return {_KEYS.get(field, field): value for field, value in dataclasses.asdict(state).items()}


def _load(folder: Path, file: str) -> dict[str, torch.Tensor]:
    # Sorted, because safetensors' order differs between processes and an engine may communicate the tensors one by one.
    return dict(sorted(load(_read(folder, file)).items()))


def _read(folder: Path, file: str) -> bytes:
    if not is_verified(folder / file):
        raise RuntimeError(f"{folder.name}/{file} is damaged: go on from an earlier state, or without one")
    return (folder / file).read_bytes()


def run_fingerprint(recipe: Recipe, data: TrainingData) -> str:
    """A digest of the examples and the learning rate of each step, the same in every release. How ranks share the steps
    may change."""
    # Without what is null: a field that a later release adds changes no digest of a recipe that lacks it.
    schedule, method = (section.model_dump(exclude_none=True) for section in (recipe.schedule, recipe.method))
    parts = {"seed": recipe.seed, "data": data.digest, "schedule": schedule, "method": method}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_same_run(state: TrainerState, start: TrainerState) -> None:
    """`start` is the state of a new run with this recipe. Raises InputError if a step would take other examples than in
    the earlier run."""
    before, now = ((each.examples, each.effective_batch_size) for each in (state, start))
    if before != now:
        raise InputError(
            FailureCode.RECIPE_INVALID,
            "the run cannot go on from its last state: that was made with {} training examples in steps of {}, and now "
            "there are {} in steps of {}; use as many devices as before, or submit the recipe anew with "
            "batch.effective_batch_size, which is the same on any number of devices".format(*before, *now),
        )
    if state.fingerprint not in (None, start.fingerprint):
        raise InputError(
            FailureCode.RECIPE_INVALID,
            "the run cannot go on from its last state: that was made with other examples or in another order, or by "
            "another method or schedule; leave method, dataset, evaluation.fraction, batch.max_length, schedule and "
            "seed as they were. If none has changed, an upgrade of the service has: submit the recipe anew",
        )


def load_adapter(folder: Path, model: torch.nn.Module) -> None:
    """Restores the trained tensors. `model` is the PEFT model before an engine has wrapped it. Raises InputError if
    other tensors are trained now."""
    saved = _load(folder, _ADAPTER)
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


def load_reference(folder: Path) -> dict[str, torch.Tensor]:
    """The log probabilities before training, of the run's training and evaluation examples."""
    return _load(folder, _REFERENCE)


def load_progress(folder: Path, engine: Engine, accelerator: Accelerator) -> None:
    """Restores the optimizer, the loss scale and the random numbers."""
    engine.load(_load(folder, _ADAPTER), _load(folder, _OPTIMIZER))
    engine.load_scaler_state(read_state(folder).scaler)
    random = _load(folder, _RANDOM)
    rank = accelerator.process_index
    # A rank that did not exist before starts with its own numbers.
    if rank < len(random["cpu"]):
        set_random_state(accelerator.device, {name: states[rank] for name, states in random.items()})


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of this rank's generators by device, as bytes."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(device: torch.device, states: dict[str, torch.Tensor]) -> None:
    # Copies: given a row of a larger tensor, torch 2.13 reads beyond it and may crash.
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def _random_states(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """States by device as [ranks, bytes]. All ranks must call this together."""
    return {
        name: accelerator.gather(state.to(accelerator.device)[None]).cpu().contiguous()
        for name, state in random_state(accelerator.device).items()
    }


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
