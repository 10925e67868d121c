"""What to try after a run has found its devices' memory too small."""

import math

from contract.events import Started
from contract.recipe import Batch


def smaller_batch(batch: Batch, started: Started) -> Batch | None:
    """Half the examples in each pass, and in each step the very ones that the run took which began as `started` tells.
    None where a pass had one example already."""
    step = min(started.effective_batch_size, started.train_examples)
    # A rank's share of a step may be smaller than its micro-batch.
    largest = min(started.micro_batch_size, math.ceil(step / started.world_size))
    if largest == 1:
        return None
    return batch.model_copy(
        update={
            "micro_batch_size": largest // 2,
            "gradient_accumulation_steps": None,
            "effective_batch_size": started.effective_batch_size,
        }
    )
