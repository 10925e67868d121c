"""The state of a run after a step: all that it needs to go on as if it had never stopped. No pickle."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from contract.failure import FailureReason, InputError
from contract.run_dir import RunDir
from trainer.durable import commit_folder

_ADAPTER = "adapter.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_RANDOM = "random.safetensors"
_POSITION = "position.json"


@dataclass(frozen=True)
class Position:
    """Where a run stands, beside its weights."""

    step: int
    loss_sum: float
    """Of all supervised tokens so far, in nats."""
    tokens: int
    """So many."""
    eval_loss: float | None
    """The last one."""
    examples: int
    """Of the training split. With `window` it says which ones each step takes."""
    window: int
    """Examples of one optimizer step, on all ranks."""


def save_state(
    run: RunDir, position: Position, model: Any, optimizer: torch.optim.Optimizer, accelerator: Accelerator, keep: int
) -> None:
    """Writes the state after a step, whole or not at all, and forgets all but the `keep` newest. Every rank calls it:
    each has random numbers of its own; rank 0 writes. `model` is the PEFT model, unwrapped."""
    random = _random_states(accelerator)
    folder = run.state(position.step)
    if not accelerator.is_main_process or folder.exists():
        return
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        save_file(_contiguous(get_peft_model_state_dict(model, save_embedding_layers=False)), beside / _ADAPTER)
        save_file(_contiguous(dict(_optimizer_tensors(model, optimizer))), beside / _OPTIMIZER)
        save_file(random, beside / _RANDOM)
        (beside / _POSITION).write_text(json.dumps(dataclasses.asdict(position)))
        commit_folder(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for old in sorted(run.states.glob("step-*"))[:-keep]:
        _forget(old)


def forget_states(run: RunDir) -> None:
    for state in run.states.glob("step-*"):
        _forget(state)


def _forget(state: Path) -> None:
    # Renamed first: what is half deleted must not look like a state.
    gone = state.with_name(f".{state.name}.gone")
    state.rename(gone)
    shutil.rmtree(gone)


def read_position(state: Path) -> Position:
    return Position(**json.loads((state / _POSITION).read_text()))


def check_position(position: Position, examples: int, window: int) -> None:
    """Raises InputError where a step would not take the examples that it took in the run before."""
    before, now = (position.examples, position.window), (examples, window)
    if before != now:
        raise InputError(
            FailureReason.RECIPE_INVALID,
            "the run cannot go on from its last state: that was made with {} training examples in steps of {}, and now "
            "there are {} in steps of {}; use as many devices as before, or submit the recipe anew".format(
                *before, *now
            ),
        )


def load_state(state: Path, model: Any, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Puts the run back to where it stood. `model` is the PEFT model, unwrapped; `optimizer` has made no step."""
    set_peft_model_state_dict(model, load_file(state / _ADAPTER))
    saved = load_file(state / _OPTIMIZER)
    values: dict[int, dict[str, torch.Tensor]] = {}
    for index, name in enumerate(_names(model, optimizer)):
        prefix = f"{name}/"
        values[index] = {key.removeprefix(prefix): saved[key] for key in saved if key.startswith(prefix)}
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    random = load_file(state / _RANDOM)
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


def _optimizer_tensors(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(_names(model, optimizer), parameters, strict=True):
        for key, value in optimizer.state[parameter].items():
            yield f"{name}/{key}", value


def _names(model: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """Of the optimizer's parameters, in its order: an order of its own might change with its groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
