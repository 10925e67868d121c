"""Bytes that a run leaves on the disk, and those that it needs on the way."""

from dataclasses import dataclass

from contract.recipe import Recipe
from estimate.adapter import Trained

_RANDOM_STATES = 20_000
"""Of a rank's generators in a state, with its position and digests."""
_BESIDE_WEIGHTS = 20_000
"""An adapter's configuration, and the names in its file."""


@dataclass(frozen=True)
class Disk:
    adapters: int
    """Of the checkpoints that checkpointing.every_steps asks for, and the final one. Those of evaluations with a new
    lowest loss, of every_minutes and of stops come besides, and nobody can count them before."""
    adapter: int
    """Each of them."""
    training_checkpoints: int
    """To go on from; none are left when the run is done."""
    merged: int
    """An export of the merged model, where one is asked for."""

    @property
    def total(self) -> int:
        """At the most, without an export."""
        return self.adapters + self.training_checkpoints


def disk(recipe: Recipe, trained: Trained, steps: int, ranks: int, base_numbers: int) -> Disk:
    """Adapters are saved in fp32, states have the adapter and the optimizer's moments. A checkpoint whose start has
    changed the base is made plain LoRA, of twice the rank (trainer/model/plain_lora.py)."""
    numbers = trained.parameters
    twice = 2 if recipe.adapter.init not in ("default", "gaussian", "loftq") else 1
    adapter = 4 * twice * numbers + _BESIDE_WEIGHTS
    every = recipe.checkpointing.every_steps
    between = 0 if every is None else (steps - 1) // every
    moments = 8 if recipe.optimizer.type == "adamw" else 2
    # The new one is whole before the oldest goes.
    kept = recipe.checkpointing.keep_training_checkpoints + 1
    state = (4 + moments) * numbers + _RANDOM_STATES * ranks
    return Disk(
        adapters=adapter * (between + 1),
        adapter=adapter,
        training_checkpoints=kept * state,
        merged=2 * base_numbers,
    )
