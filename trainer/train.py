"""The training run, from a recipe to an adapter: everything that comes before the loop."""

import importlib.metadata
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from contract.events import Done, Log, Phase, Started
from contract.failure import FailureCode, InputError
from contract.order import examples_per_step
from contract.recipe import Recipe
from contract.run_dir import RunDir
from trainer.data.examples import Data, load_data, words_of_length
from trainer.data.vocabulary import check_vocabulary
from trainer.device import describe, this_device
from trainer.engines.ddp import Ddp
from trainer.engines.engine import Engine
from trainer.loading import load_together
from trainer.loop import fit
from trainer.micro_batch import free_memory, largest_micro_batch, worst_case
from trainer.model.base_model import load_model
from trainer.model.kernels import use_kernels
from trainer.model.loss import SupervisedLoss
from trainer.model.packing import pack
from trainer.precision import DTYPES, check_precision, resolve_precision
from trainer.ranks import asked_to_stop, max_over_ranks, start_ranks
from trainer.report import Report
from trainer.run import Run
from trainer.saving.state import (
    Position,
    check_position,
    course,
    load_adapter,
    load_progress,
    random_state,
    read_position,
    set_random_state,
)
from trainer.stop import Stop


def train(recipe: Recipe, folder: RunDir, resume: Path | None, cache: Path, report: Report, stop: Stop) -> None:
    """Goes on from the state `resume` where one is given. `cache` is the folder of tokenised datasets and
    compiled layers.

    Raises InputError for what only shows here: on this device, in model and data, and for a loss that is not finite.
    """
    precision = resolve_precision(recipe, this_device())
    accelerator = start_ranks(recipe, precision)
    _check_agreement(precision, accelerator)
    torch.manual_seed(recipe.seed)
    loaded = load(recipe, DTYPES[precision], accelerator, cache, report, stop)
    # Here the ranks meet for the first time: none may leave before, the others would wait for it in vain.
    if asked_to_stop(accelerator, stop) or loaded is None:
        report(Done, step=read_position(resume).step if resume else 0, completed=False, train_loss=None, eval_loss=None)
        return
    module, data = loaded
    check_vocabulary(recipe, module.model.get_base_model(), data)
    window = examples_per_step(recipe.batch, accelerator.num_processes)
    start = Position(len(data.train), window, micro_batch=1, course=course(recipe, data))
    position = read_position(resume) if resume else None
    if resume and position:
        check_position(position, start)
        load_adapter(resume, module.model)
    # The base comes in evaluation mode, the adapter on it in training mode.
    module.train()
    engine = make_engine(recipe, precision, module, accelerator)
    # Each rank drops out its own units.
    torch.manual_seed(recipe.seed + accelerator.process_index)
    # "auto" is resolved once; a number may be another than before, after the run was out of memory.
    if position is None or recipe.batch.micro_batch_size != "auto":
        micro_batch = find_micro_batch(recipe, data, window, engine, accelerator, stop)
        position = replace(position or start, micro_batch=micro_batch)
    check_precision(engine.module, precision)
    run = Run(recipe, folder, accelerator, report, stop, data, engine, window, position.micro_batch)
    if resume:
        load_progress(resume, engine, accelerator)
    _report_start(run, precision, position.step)
    fit(run, position)


def load(
    recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator, cache: Path, report: Report, stop: Stop
) -> tuple[SupervisedLoss, Data] | None:
    """None when asked to stop before it is done."""
    if recipe.parallel.zero_stage == 3:
        # One after the other: what any thread makes while DeepSpeed divides a model goes to its device. And the ranks
        # together: one that left would have the others wait for it.
        data = _load_data(recipe, cache, report)
        return _load_model(recipe, dtype, accelerator, cache, report), data
    return load_together(
        stop,
        lambda: _load_model(recipe, dtype, accelerator, cache, report),
        lambda: _load_data(recipe, cache, report),
    )


def _check_agreement(precision: str, accelerator: Accelerator) -> None:
    """All ranks together. Raises InputError on each where "auto" is not the same on all."""
    number = list(DTYPES).index(precision)
    if max_over_ranks(accelerator, number) != -max_over_ranks(accelerator, -number):
        raise InputError(
            FailureCode.PRECISION_UNAVAILABLE,
            'precision: "auto" is not the same on all machines of this run; use "fp32", or what all of them have',
            "precision",
        )


def find_micro_batch(
    recipe: Recipe, data: Data, window: int, engine: Engine, accelerator: Accelerator, stop: Stop
) -> int:
    """The recipe's own, or the largest that fits into every rank's device. All ranks together; it looks no further when
    one is asked to stop."""
    if not engine.module.packed:
        return 1
    if recipe.batch.micro_batch_size != "auto":
        return recipe.batch.micro_batch_size
    device = accelerator.device
    share = math.ceil(min(window, len(data.train)) / accelerator.num_processes)
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    random = random_state(device)
    found = largest_micro_batch(
        worst_case(data.train, share),
        # Times zero: the gradients are zeros, and need not be forgotten.
        probe=lambda documents: engine.accumulate(pack(documents).to(device), 0.0, exchange=False),
        agree=lambda value: max_over_ranks(accelerator, math.inf if stop.asked else value),
        device=device,
        free=free_memory(device, local_ranks),
    )
    set_random_state(device, random)
    return found


def make_engine(recipe: Recipe, precision: str, module: SupervisedLoss, accelerator: Accelerator) -> Engine:
    # Each brings its library: imported when asked for.
    match recipe.parallel.engine:
        case "deepspeed":
            from trainer.engines.zero import Zero

            return Zero(module, recipe.optimizer, accelerator)
        case "fsdp":
            from trainer.engines.fsdp import Fsdp

            return Fsdp(module, recipe.optimizer, accelerator)
    return Ddp(module, recipe.optimizer, accelerator, fp16=precision == "fp16")


def load_for_engine(recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator) -> SupervisedLoss:
    """Where the engine takes it from: what is to be divided among the devices need not fit into one."""
    if recipe.parallel.zero_stage == 3:
        from trainer.engines.zero import loads_divided

        held = loads_divided(accelerator, dtype)
        module = load_model(recipe, dtype, torch.device("cpu"))
        del held
        return module
    if recipe.parallel.engine == "fsdp":
        return load_model(recipe, dtype, torch.device("cpu"))
    return load_model(recipe, dtype, this_device())


def _load_model(
    recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator, cache: Path, report: Report
) -> SupervisedLoss:
    began = time.perf_counter()
    module = load_for_engine(recipe, dtype, accelerator)
    base = module.model.get_base_model()
    if recipe.torch_compile:
        from trainer.model.compiling import compile_layers  # imports the compiler's settings

        compile_layers(base, module.packed, cache / "compiled")
    elif this_device().type == "cuda":
        use_kernels(base)
    report(Phase, name="model", seconds=time.perf_counter() - began)
    return module


def _load_data(recipe: Recipe, cache: Path, report: Report) -> Data:
    began = time.perf_counter()
    data = load_data(recipe, cache)
    report(Phase, name="data", seconds=time.perf_counter() - began)
    return data


def _report_start(run: Run, precision: str, resumed_step: int) -> None:
    trainable, total = run.engine.module.model.get_nb_trainable_parameters()
    data = run.data
    run.report(
        Started,
        resumed_step=resumed_step,
        total_steps=run.total_steps,
        train_examples=len(data.train),
        eval_examples=len(data.evaluation),
        supervised_tokens=data.train.targets,
        truncated_examples=data.truncated,
        dropped_examples=data.dropped,
        trainable_parameters=trainable,
        total_parameters=total,
        world_size=run.accelerator.num_processes,
        engine=run.engine.name,
        micro_batch_size=run.micro_batch,
        effective_batch_size=run.window,
        device=describe(run.accelerator.device),
        precision=precision,
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")},
    )
    asked, world_size = run.recipe.resources, run.accelerator.num_processes
    if world_size != asked.gpus * asked.nodes:
        message = (
            f"resources: the recipe asks for {asked.gpus * asked.nodes} ranks, and {world_size} were started; a "
            f"step takes {run.window} examples on all of them"
        )
        run.report(Log, level="warning", message=message)
    if not Path(run.recipe.model).is_dir():  # of a folder the service says so when it takes the job
        for message in getattr(run.engine.module.model, "left_out", []):
            run.report(Log, level="warning", message=message)
    if data.dropped:
        run.report(
            Log,
            level="warning",
            message=f"{data.dropped} examples are left out: no answer within "
            f"{words_of_length(run.recipe, data.max_length)}",
        )
