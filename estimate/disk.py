"""Bytes that a run leaves on the disk, and that it needs temporarily."""

import math
from dataclasses import dataclass

from contract.order import steps_per_epoch
from contract.recipe import Recipe
from estimate.adapter import TrainedParameters
from estimate.work import TrainingWork

_RANDOM_STATES = 20_000
"""A rank's random states in a training checkpoint, with its JSON files."""
_BESIDE_WEIGHTS = 20_000
"""An adapter's configuration, and the names in its file."""


@dataclass(frozen=True)
class DiskEstimate:
    adapters: int
    """Checkpoints due by checkpointing.every_steps and every_epochs, and the final one. Those of evaluations with a new
    lowest loss, of every_minutes and of stops are extra, and cannot be counted in advance."""
    adapter: int
    """Bytes of each of them."""
    training_checkpoints: int
    """Training checkpoints to continue from; none remain once the run is done."""
    merged: int
    """An export of the merged model, if requested."""

    @property
    def total(self) -> int:
        """The maximum, without an export."""
        return self.adapters + self.training_checkpoints


def estimate_disk(
    recipe: Recipe, trained: TrainedParameters, work: TrainingWork, ranks: int, base_numbers: int
) -> DiskEstimate:
    """Adapters are saved in fp32. Training checkpoints have the adapter and the optimizer's moments. An adapter whose
    start has changed the base is saved as plain LoRA of twice the rank (trainer/model/plain_lora.py)."""
    parameters = trained.parameters
    twice = 2 if recipe.adapter.init not in ("default", "gaussian", "loftq") else 1
    adapter = 4 * twice * parameters + _BESIDE_WEIGHTS
    saved = _saves(recipe, work) + 1
    if (keep := recipe.checkpointing.keep_adapters) is not None:
        # A new one is complete before the oldest is deleted, and the best one stays.
        saved = min(saved, keep + (2 if recipe.evaluation.holds_out else 1))
    moments = 8 if recipe.optimizer.type == "adamw" else 2
    # The new one is complete before the oldest is deleted.
    kept = recipe.checkpointing.keep_training_checkpoints + 1
    state = (4 + moments) * parameters + _RANDOM_STATES * ranks
    return DiskEstimate(
        adapters=adapter * saved,
        adapter=adapter,
        training_checkpoints=kept * state,
        merged=2 * base_numbers,
    )


def _saves(recipe: Recipe, work: TrainingWork) -> int:
    """Adapters saved before the last step because steps or epochs have passed; one where both have."""
    per_epoch = steps_per_epoch(work.train_examples, work.effective_batch_size)
    by_steps, epochs = recipe.checkpointing.every_steps, recipe.checkpointing.every_epochs
    by_epochs = None if epochs is None else epochs * per_epoch
    both = None if by_steps is None or by_epochs is None else math.lcm(by_steps, by_epochs)
    counts = [0 if every is None else (work.steps - 1) // every for every in (by_steps, by_epochs, both)]
    return counts[0] + counts[1] - counts[2]
