"""Runs the trainer in this process, on one rank: quick, and a test can have things happen in a micro-batch of it."""

from pathlib import Path
from typing import Any

import pytest

from contract.recipe import Recipe
from contract.run_dir import RunDir
from tests.trainer.conftest import Outcome
from trainer.engines.ddp import Ddp
from trainer.model.packing import Packed
from trainer.report import Report
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
    """Micro-batches are counted from 1: in one it is asked to stop, and the gradients of one are too large for fp16.
    Raises what ends the run."""
    stop, passes, accumulate = Stop(), 0, Ddp.accumulate

    def watched(engine: Ddp, batch: Packed, scale: float, exchange: bool) -> float:
        nonlocal passes
        passes += 1
        stop.asked = stop.asked or passes == stop_in
        return accumulate(engine, batch, scale * (1e30 if passes == overflow_in else 1), exchange)

    folder.mkdir()
    run = RunDir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ddp, "accumulate", watched)
        train(Recipe.model_validate(recipe), run, resume, cache, Report(run.events, rank=0), stop)
    return Outcome(folder, 0, "")
