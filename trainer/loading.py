"""Loads the model and the data of a run, side by side where the engine allows it."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from contract.events import PhaseEvent
from contract.recipe import Recipe
from trainer.data.examples import TrainingData, load_data
from trainer.device import this_device
from trainer.event_writer import EventWriter
from trainer.model.base_model import load_model
from trainer.model.kernels import use_kernels
from trainer.model.trained_model import TrainedModel
from trainer.setup import RunSetup
from trainer.stop import Stop

A = TypeVar("A")
B = TypeVar("B")

_POLL_SECONDS = 0.1


def load(setup: RunSetup, dtype: torch.dtype, accelerator: Accelerator) -> tuple[TrainedModel, TrainingData] | None:
    """None if a stop was requested first."""
    if setup.recipe.parallel.zero_stage == 3:
        # One after the other: while DeepSpeed shards a model, tensors that another thread makes go to its device. A
        # rank must not leave early either, since the others would wait for it.
        data = _load_data(setup.recipe, setup.cache, setup.report)
        return _load_model(setup, dtype, accelerator), data
    return load_together(
        setup.stop,
        lambda: _load_model(setup, dtype, accelerator),
        lambda: _load_data(setup.recipe, setup.cache, setup.report),
    )


def load_together(stop: Stop, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B] | None:
    """The results of both, each from its own thread; None if a stop is requested before that.

    The first exception of either is raised at once. Then, and after None, the other thread still runs: only the end of
    the process ends it, and `os._exit` does not wait for it.
    """
    pool = ThreadPoolExecutor(2)
    one, two = pool.submit(first), pool.submit(second)
    pool.shutdown(wait=False)
    pending: set[Future[Any]] = {one, two}
    while pending:
        if stop.requested:
            return None
        done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
    return one.result(), two.result()


def _load_model(setup: RunSetup, dtype: torch.dtype, accelerator: Accelerator) -> TrainedModel:
    began = time.perf_counter()
    module = load_for_engine(setup.recipe, dtype, accelerator, setup.cache)
    base = module.model.get_base_model()
    if setup.recipe.torch_compile:
        from trainer.model.compiling import compile_layers  # imports the compiler's settings

        compile_layers(base, module.packed, setup.cache / "compiled")
    elif this_device().type == "cuda":
        use_kernels(base)
    setup.report(PhaseEvent, name="model", seconds=time.perf_counter() - began)
    return module


def load_for_engine(recipe: Recipe, dtype: torch.dtype, accelerator: Accelerator, cache: Path | None) -> TrainedModel:
    """Loads the model where its engine takes it from. A model that is to be sharded need not fit into one device."""
    if recipe.parallel.zero_stage == 3:
        from trainer.engines.zero import shard_on_load

        held = shard_on_load(accelerator, dtype)
        module = load_model(recipe, dtype, torch.device("cpu"), cache)
        del held
        return module
    if recipe.parallel.engine == "fsdp":
        return load_model(recipe, dtype, torch.device("cpu"), cache)
    return load_model(recipe, dtype, this_device(), cache)


def _load_data(recipe: Recipe, cache: Path, report: EventWriter) -> TrainingData:
    began = time.perf_counter()
    data = load_data(recipe, cache)
    report(PhaseEvent, name="data", seconds=time.perf_counter() - began)
    return data
