"""What to try after a run has exceeded its devices' memory."""

import math

from contract.events import StartedEvent
from contract.recipe import Batch


def smaller_batch(batch: Batch, started: StartedEvent) -> Batch | None:
    """A batch with half the examples in each pass and the same examples in each step as the run that began with
    `started`. None if a pass already had only one example."""
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
