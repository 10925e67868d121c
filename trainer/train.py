"""A training run from recipe to adapter: everything before the loop."""

import hashlib
import importlib.metadata
import math
import os
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from contract.events import DoneEvent, LogEvent, StartedEvent
from contract.failure import FailureCode, InputError
from contract.order import examples_per_step
from contract.recipe import Recipe
from trainer.data.examples import TrainingData, describe_length_limit
from trainer.data.packing import pack
from trainer.data.vocabulary import check_vocabulary
from trainer.device import describe, this_device
from trainer.engines.ddp import Ddp
from trainer.engines.engine import Engine
from trainer.loading import load
from trainer.loop import fit
from trainer.micro_batch import free_memory, largest_micro_batch, worst_case_items
from trainer.model.trained_model import TrainedModel
from trainer.precision import DTYPES, check_precision, resolve_precision
from trainer.ranks import max_over_ranks, start_ranks, stop_requested
from trainer.reference import put_reference, with_reference
from trainer.run import TrainingRun
from trainer.saving.state import (
    TrainerState,
    check_same_run,
    load_adapter,
    load_progress,
    load_reference,
    random_state,
    read_state,
    run_fingerprint,
    set_random_state,
)
from trainer.setup import RunSetup


def train(setup: RunSetup) -> None:
    """Trains from the state `setup.resume`, or from the start.

    Raises InputError for what only this point can show: a fault of this device, of the model or of the data, or a loss
    that is not finite.
    """
    recipe, resume = setup.recipe, setup.resume
    precision = resolve_precision(recipe, this_device())
    accelerator = start_ranks(recipe, precision)
    _check_agreement(precision, accelerator)
    loaded = load(setup, DTYPES[precision], accelerator)
    # The ranks meet here for the first time. None may leave earlier, or the others would wait for it in vain.
    if stop_requested(accelerator, setup.stop) or loaded is None:
        step = read_state(resume).step if resume else 0
        setup.report(DoneEvent, step=step, completed=False, train_loss=None, eval_loss=None)
        return
    module, data = loaded
    _agree_on_path(module, accelerator)
    check_vocabulary(recipe, module.model.get_base_model(), data)
    start = _new_state(recipe, data, accelerator)
    state = _resumed_state(resume, start, module) if resume else None
    # The base comes in evaluation mode, the adapter on it in training mode.
    module.train()
    engine = make_engine(recipe, precision, module, accelerator)
    if recipe.method.needs_reference:
        # Before the first step, the engine has the model that training starts from. A resumed run has another one.
        referred = (
            put_reference(data, load_reference(resume)) if resume else with_reference(setup, data, engine, accelerator)
        )
        if referred is None:
            setup.report(DoneEvent, step=0, completed=False, train_loss=None, eval_loss=None)
            return
        data = referred
    # Each rank drops out its own units.
    torch.manual_seed(recipe.seed + accelerator.process_index)
    # "auto" is resolved once. A number may have changed since, after the run was out of memory.
    if state is None or recipe.batch.micro_batch_size != "auto":
        micro_batch = find_micro_batch(setup, data, start.effective_batch_size, engine, accelerator)
        state = replace(state or start, micro_batch=micro_batch)
    check_precision(engine.module, precision)
    run = TrainingRun(
        recipe=recipe,
        folder=setup.folder,
        accelerator=accelerator,
        report=setup.report,
        stop=setup.stop,
        data=data,
        engine=engine,
        effective_batch_size=start.effective_batch_size,
        micro_batch=state.micro_batch,
    )
    if resume:
        load_progress(resume, engine, accelerator)
    _report_start(run, precision, state.step)
    _warn_at_start(run)
    fit(run, state)


def _new_state(recipe: Recipe, data: TrainingData, accelerator: Accelerator) -> TrainerState:
    return TrainerState(
        examples=len(data.train),
        effective_batch_size=examples_per_step(recipe.batch, accelerator.num_processes),
        micro_batch=1,
        fingerprint=run_fingerprint(recipe, data),
    )


def _resumed_state(folder: Path, start: TrainerState, module: TrainedModel) -> TrainerState:
    """The state in `folder`, whose adapter is put into the module. Raises InputError if the run is another one."""
    state = read_state(folder)
    check_same_run(state, start)
    load_adapter(folder, module.model)
    return state


def _check_agreement(precision: str, accelerator: Accelerator) -> None:
    """All ranks call it together. Raises InputError on each if "auto" differs between them."""
    number = list(DTYPES).index(precision)
    if max_over_ranks(accelerator, number) != -max_over_ranks(accelerator, -number):
        raise InputError(
            FailureCode.PRECISION_UNAVAILABLE,
            'precision: "auto" is not the same on all machines of this run; use "fp32", or what all of them have',
            "precision",
        )


def _agree_on_path(module: TrainedModel, accelerator: Accelerator) -> None:
    """All ranks call it together, since they must run their models equally often."""
    digest = hashlib.sha256(repr(replace(module.path, because="")).encode()).digest()
    number = int.from_bytes(digest[:3], "big")
    if max_over_ranks(accelerator, number) != -max_over_ranks(accelerator, -number):
        module.take_one_by_one("the machines of this run do not agree on whether rows can be packed")


def find_micro_batch(
    setup: RunSetup, data: TrainingData, effective_batch_size: int, engine: Engine, accelerator: Accelerator
) -> int:
    """The recipe's micro-batch size, or the largest that fits into every rank's device. All ranks call it together. The
    search ends when a stop is requested on any of them."""
    recipe, stop = setup.recipe, setup.stop
    if not engine.module.packed:
        return 1
    if recipe.batch.micro_batch_size != "auto":
        return recipe.batch.micro_batch_size
    device = accelerator.device
    share = math.ceil(min(effective_batch_size, len(data.train)) / accelerator.num_processes)
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    random = random_state(device)
    found = largest_micro_batch(
        worst_case_items(data.train, share),
        # Scaled by zero, so the gradients are zeros and need not be cleared.
        # Without shared prompts, the longest items are those that take the most memory.
        probe=lambda items: engine.accumulate(pack(items).to(device), 0.0, sync_gradients=False),
        agree=lambda value: max_over_ranks(accelerator, math.inf if stop.requested else value),
        device=device,
        free=free_memory(device, local_ranks),
    )
    set_random_state(device, random)
    return found


def make_engine(recipe: Recipe, precision: str, module: TrainedModel, accelerator: Accelerator) -> Engine:
    # Each engine imports its library only when it is used.
    match recipe.parallel.engine:
        case "deepspeed":
            from trainer.engines.zero import Zero

            return Zero(module, recipe.optimizer, accelerator)
        case "fsdp":
            from trainer.engines.fsdp import Fsdp

            return Fsdp(module, recipe.optimizer, accelerator)
    return Ddp(module, recipe.optimizer, accelerator, fp16=precision == "fp16")


def _report_start(run: TrainingRun, precision: str, resumed_step: int) -> None:
    trainable, total = run.engine.module.model.get_nb_trainable_parameters()
    data = run.data
    run.report(
        StartedEvent,
        resumed_step=resumed_step,
        total_steps=run.total_steps,
        train_examples=len(data.train),
        eval_examples=len(data.evaluation),
        supervised_tokens=data.train.targets,
        truncated_examples=data.truncated,
        dropped_examples=data.dropped,
        trainable_parameters=trainable,
        total_parameters=total,
        trained=run.engine.module.model.trained,
        world_size=run.accelerator.num_processes,
        engine=run.engine.name,
        micro_batch_size=run.micro_batch,
        effective_batch_size=run.effective_batch_size,
        packed=run.engine.module.packed,
        packing=run.engine.module.path.because,
        device=describe(run.accelerator.device),
        precision=precision,
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")},
    )


def _warn_at_start(run: TrainingRun) -> None:
    data = run.data
    resources, world_size = run.recipe.resources, run.accelerator.num_processes
    if world_size != resources.gpus * resources.nodes:
        message = (
            f"resources: the recipe asks for {resources.gpus * resources.nodes} ranks, and {world_size} were started; "
            f"a step takes {run.effective_batch_size} examples on all of them"
        )
        run.report(LogEvent, level="warning", message=message)
    if not Path(run.recipe.model).is_dir():  # for a folder, the service says so when it accepts the job
        for message in getattr(run.engine.module.model, "skipped", []):
            run.report(LogEvent, level="warning", message=message)
    if not data.ends:
        message = (
            "dataset: no answer ends with a special token of the model's tokenizer, so that generation may not stop "
            "there; mark the token that ends a turn as special in tokenizer.json, add it to eos_token_id of "
            "generation_config.json, or use dataset.chat_template"
        )
        run.report(LogEvent, level="warning", message=message)
    if data.dropped:
        missing = "not both answers are" if run.recipe.method.learns == "pairs" else "no answer is"
        first = ", ".join(map(str, data.dropped_rows))
        run.report(
            LogEvent,
            level="warning",
            message=f"{data.dropped} examples are left out: {missing} within "
            f"{describe_length_limit(run.recipe, data.max_length)}"
            + (f"; the first are the examples {first}" if first else ""),
        )
