"""How far the model has moved from what it was before training, which KTO compares each answer with."""

from collections.abc import Sequence

from trainer.data.items import Item, Rating
from trainer.methods.kto import kl_baseline
from trainer.ranks import sum_over_ranks
from trainer.run import TrainingRun


def measure_baseline(run: TrainingRun, items: Sequence[Item]) -> float:
    """The same on all ranks, which must call this together; zero for a method without ratings.

    Answers go through the model without gradients, each after the prompt of another example. Dropout is off, so no
    random numbers are used.
    """
    ratings = [item.of_other for item in items if isinstance(item, Rating)]
    if not ratings:
        return 0.0
    module = run.engine.module
    was_training = module.training
    module.eval()
    total = 0.0
    for micro_batch in run.micro_batches(ratings):
        # What it was for is abandoned too, by whoever notices it here.
        if run.should_abandon(together=run.engine.shards_parameters):
            break
        batch = run.pack(micro_batch)
        log_probabilities = run.engine.sums(batch, log_probabilities=True)
        if batch.answers is not None:
            total += (log_probabilities - batch.answers.reference).sum().item()
    module.train(was_training)
    return kl_baseline(sum_over_ranks(run.accelerator, total)[0], len(ratings))
