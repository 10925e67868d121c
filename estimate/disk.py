"""Bytes that a run leaves on the disk, and that it needs temporarily."""

from dataclasses import dataclass

from contract.recipe import Recipe
from estimate.adapter import TrainedParameters

_RANDOM_STATES = 20_000
"""A rank's random states in a training checkpoint, with its JSON files."""
_BESIDE_WEIGHTS = 20_000
"""An adapter's configuration, and the names in its file."""


@dataclass(frozen=True)
class DiskEstimate:
    adapters: int
    """Checkpoints due by checkpointing.every_steps, and the final one. Those of evaluations with a new lowest loss, of
    every_minutes and of stops are extra, and cannot be counted in advance."""
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
    recipe: Recipe, trained: TrainedParameters, steps: int, ranks: int, base_numbers: int
) -> DiskEstimate:
    """Adapters are saved in fp32. Training checkpoints have the adapter and the optimizer's moments. An adapter whose
    start has changed the base is saved as plain LoRA of twice the rank (trainer/model/plain_lora.py)."""
    parameters = trained.parameters
    twice = 2 if recipe.adapter.init not in ("default", "gaussian", "loftq") else 1
    adapter = 4 * twice * parameters + _BESIDE_WEIGHTS
    every = recipe.checkpointing.every_steps
    between = 0 if every is None else (steps - 1) // every
    moments = 8 if recipe.optimizer.type == "adamw" else 2
    # The new one is complete before the oldest is deleted.
    kept = recipe.checkpointing.keep_training_checkpoints + 1
    state = (4 + moments) * parameters + _RANDOM_STATES * ranks
    return DiskEstimate(
        adapters=adapter * (between + 1),
        adapter=adapter,
        training_checkpoints=kept * state,
        merged=2 * base_numbers,
    )
