"""Runs the trainer in this process, on one rank: quick, and a test can have things happen in a micro-batch of it."""

from pathlib import Path
from typing import Any

import pytest

from contract.recipe import Recipe
from contract.run_dir import RunDir
from tests.trainer.trainer_process import Outcome
from trainer.data.packing import PackedBatch
from trainer.engines.ddp import Ddp
from trainer.event_writer import EventWriter
from trainer.setup import RunSetup
from trainer.stop import Stop
from trainer.train import train


def train_here(
    recipe: dict[str, Any],
    folder: Path,
    cache: Path,
    resume: Path | None = None,
    *,
    stop_in: int | None = None,
    overflow_in: int | None = None,
) -> Outcome:
    """Micro-batches are counted from 1: in one it is stopped, and the gradients of one are too large for fp16.
    Raises what ends the run."""
    stop, passes, accumulate = Stop(), 0, Ddp.accumulate

    def watched(engine: Ddp, batch: PackedBatch, scale: float, sync_gradients: bool) -> float:
        nonlocal passes
        passes += 1
        stop.requested = stop.requested or passes == stop_in
        return accumulate(engine, batch, scale * (1e30 if passes == overflow_in else 1), sync_gradients)

    folder.mkdir(exist_ok=True)
    run = RunDir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ddp, "accumulate", watched)
        report = EventWriter(run.events, rank=0)
        train(RunSetup(Recipe.model_validate(recipe), run, report, stop, cache, resume))
    return Outcome(folder, 0, "")
