"""Takes the same steps with each engine in turn, and tells what came of them: see engine_program.py."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from contract.order import rank_micro_batches
from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.packing import pack
from trainer.engines.engine import Engine
from trainer.loading import load_for_engine
from trainer.precision import DTYPES, check_precision
from trainer.ranks import start_ranks, sum_over_ranks
from trainer.train import make_engine

LEARNING_RATE = 3e-3
MAX_GRAD_NORM = 0.1
STEPS = 3
TAKES_STATES = ("ddp", "zero-3", "fsdp")


def compare(model: str, out: Path, engines: dict[str, dict[str, Any]], variants: dict[str, dict[str, Any]]) -> None:
    states = {}
    for name, parallel in engines.items():
        raw_gradients(*start(model, parallel, optimizer=torch.optim.SGD), out / f"{name}.gradients.safetensors")
        engine, accelerator = start(model, parallel)
        take_steps(engine, accelerator, MAX_GRAD_NORM, out / f"{name}.steps.json")
        states[name] = {key: value.clone() for key, value in {**engine.adapter(), **engine.optimizer_state()}.items()}
    take_steps(*start(model, engines["ddp"]), None, out / "not clipped.steps.json")
    for name in sorted(engines.keys() - {"ddp"}):
        reported = {}
        for taker in TAKES_STATES:
            engine, _ = start(model, engines[taker], states[name])
            engine.load(*parts(states[name]))
            again = {**engine.adapter(), **engine.optimizer_state()}
            reported[taker] = again.keys() == states[name].keys() and all(
                torch.equal(value.float(), states[name][key].float()) for key, value in again.items()
            )
        write(out / f"{name}.loaded.json", reported)
    for name in sorted({"zero-1", "zero-2", "zero-3"} & engines.keys()):
        write(out / f"{name}.fp16.json", fp16(model, engines[name]))
    for variant, given in variants.items():
        for name in ("ddp", *given["engines"]):
            engine, accelerator = start(model, engines[name], **given["recipe"])
            take_steps(engine, accelerator, MAX_GRAD_NORM, out / f"{variant}, {name}.steps.json")


def fp16(model: str, parallel: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's fp16, which it has for GPUs alone: it is made to accept a CPU."""
    from deepspeed.accelerator import get_accelerator

    cpu = get_accelerator()
    cpu.is_fp16_supported = lambda: True
    cpu.supported_dtypes = lambda: [torch.float32, torch.float16, torch.bfloat16]
    engine, accelerator = start(model, parallel, precision="fp16")
    # Small gradients: those of a step may overflow where products of fp16 are summed in fp16.
    losses = [accumulate(engine, accelerator, 0, planted=2**-4)]
    updates = [engine.update(LEARNING_RATE, MAX_GRAD_NORM)]
    before = {name: value.clone() for name, value in engine.adapter().items()}
    accumulate(engine, accelerator, 1, planted=1e30)
    updates.append(engine.update(LEARNING_RATE, MAX_GRAD_NORM))
    kept = all(torch.equal(value, before[name]) for name, value in engine.adapter().items())
    losses.append(accumulate(engine, accelerator, 1, planted=2**-4))
    updates.append(engine.update(LEARNING_RATE, MAX_GRAD_NORM))

    adapter = {name: value.clone() for name, value in engine.adapter().items()}
    optimizer = {name: value.clone() for name, value in engine.optimizer_state().items()}
    other, _ = start(model, parallel, adapter, precision="fp16")
    other.load(adapter, optimizer)
    other.load_scaler_state(engine.scaler_state())
    again = {**other.adapter(), **other.optimizer_state()}
    scaler = engine.scaler_state()
    same = all(torch.equal(value.float(), again[name].float()) for name, value in {**adapter, **optimizer}.items())
    same = same and other.scaler_state() == scaler
    # The 2000th clean step doubles it, and a GradScaler that goes on from here counts from 0.
    other.load_scaler_state({"scale": 2**10, "clean_steps": 1999})
    accumulate(other, accelerator, 1)
    other.update(LEARNING_RATE, MAX_GRAD_NORM)
    engine.load_scaler_state({"scale": 4.0, "clean_steps": 0})
    for _ in range(4):
        accumulate(engine, accelerator, 1, planted=1e30)
        least = engine.update(LEARNING_RATE, MAX_GRAD_NORM)
    return {
        "losses": losses,
        "scaler": scaler,
        "same": same,
        "raised": other.scaler_state(),
        "least": [least.overflow, least.loss_scale],
        "scales": [update.loss_scale for update in updates],
        "overflows": [update.overflow for update in updates],
        "kept": kept,
    }


def parts(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The adapter's, and the optimizer's."""
    return {k: v for k, v in state.items() if "/" not in k}, {k: v for k, v in state.items() if "/" in k}


def start(
    model: str,
    parallel: dict[str, Any],
    weights: dict[str, torch.Tensor] | None = None,
    optimizer: type[torch.optim.Optimizer] | None = None,
    **fields: Any,
) -> tuple[Engine, Accelerator]:
    """`fields` are the recipe's own. An earlier adapter stays as it is."""
    AcceleratorState._reset_state(reset_partial_state=True)
    base = {
        "model": model,
        "dataset": "unused",
        "adapter": {"r": 4},
        "optimizer": {"weight_decay": 0.1, "max_grad_norm": None if optimizer else MAX_GRAD_NORM, "lora_plus_ratio": 2},
        "precision": "fp32",
        "parallel": parallel,
    }
    recipe = Recipe.model_validate(base | fields)
    accelerator = start_ranks(recipe, recipe.precision)
    if accelerator.state.deepspeed_plugin is not None:
        # Small weights stay whole: these are all small.
        zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
        zero["stage3_param_persistence_threshold"] = 0
    torch.manual_seed(1)
    module = load_for_engine(recipe, DTYPES[recipe.precision], accelerator, None).train()
    check_precision(module, recipe.precision)
    torch.manual_seed(2)
    for name, parameter in module.model.named_parameters():
        if ("lora_A" in name or "lora_B" in name) and recipe.adapter.start_from is None:
            noise = 0.1 * torch.randn_like(parameter)
            parameter.data.copy_(noise if weights is None else weights[name])
    with pytest.MonkeyPatch.context() as patch:
        if optimizer:
            patch.setattr("trainer.engines.optim._kind", lambda _: lambda groups, lr, **_: optimizer(groups, lr=lr))
        return make_engine(recipe, recipe.precision, module, accelerator), accelerator


def accumulate(engine: Engine, accelerator: Accelerator, step: int, planted: float = 1.0) -> float:
    """Five documents in micro-batches of two: the second rank's last one is empty. Returns their mean loss."""
    documents = [document(step * 5 + index) for index in range(5)]
    supervised = sum(document.targets for document in documents)
    micro_batches = rank_micro_batches(documents, accelerator.process_index, accelerator.num_processes, 2)
    loss_sum = 0.0
    for index, micro_batch in enumerate(micro_batches, start=1):
        scale = planted * accelerator.num_processes / supervised
        loss_sum += engine.accumulate(pack(micro_batch), scale, sync_gradients=index == len(micro_batches))[0].item()
    return sum_over_ranks(accelerator, loss_sum)[0] / supervised


def document(index: int) -> Document:
    generator = torch.Generator().manual_seed(index)
    length = int(torch.randint(3, 24, (), generator=generator))
    ids = torch.randint(3, 300, (length,), generator=generator).tolist()
    return Document(ids, [False, *(torch.rand(length - 2, generator=generator) < 0.6).tolist(), True])


def raw_gradients(engine: Engine, accelerator: Accelerator, file: Path) -> None:
    """Of two steps, plain ones, not clipped: the second shows that the first's are forgotten, and moved the weights as
    far as they should."""
    reported = {}
    for step in range(2):
        accumulate(engine, accelerator, step)
        for name, parameter in engine.module.model.named_parameters():
            if parameter.requires_grad:
                reported[f"{name}, step {step + 1}"] = whole_gradient(engine, parameter).contiguous().clone()
        engine.update(0.1, None)
    if accelerator.is_main_process:
        save_file(reported, file)


def whole_gradient(engine: Engine, parameter: Any) -> torch.Tensor:
    if engine.name.startswith("deepspeed"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter)
    gradient = parameter.grad
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def take_steps(engine: Engine, accelerator: Accelerator, max_grad_norm: float | None, file: Path) -> None:
    losses, norms = [], []
    for step in range(STEPS):
        losses.append(accumulate(engine, accelerator, step))
        norms.append(engine.update(LEARNING_RATE, max_grad_norm).grad_norm)
    write(file, {"losses": losses, "grad_norms": norms})


def write(file: Path, reported: dict[str, Any]) -> None:
    if os.environ["RANK"] == "0":
        file.write_text(json.dumps(reported))
