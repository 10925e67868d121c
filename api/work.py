"""How much a recipe trains, as far as can be known before it does."""

import math

from contract.recipe import Recipe


def examples_to_train(recipe: Recipe, rows: int) -> int:
    """Examples of a dataset of `rows` that a run goes through, one of each epoch counted each time. The split and the
    steps are those of contract/order.py; `evaluation.patience` may end the run before."""
    share, schedule = recipe.evaluation.share, recipe.schedule
    held_out = max(1, int(rows * share)) if share > 0 else 0
    examples = math.ceil((rows - held_out) * schedule.epochs)
    return examples if schedule.max_steps is None else min(examples, schedule.max_steps * _step_examples(recipe))


def _step_examples(recipe: Recipe) -> int:
    """Of one optimizer step, on all devices."""
    batch, resources = recipe.batch, recipe.resources
    if batch.effective is not None:
        return batch.effective
    assert batch.micro_batch != "auto", "the contract wants batch.effective with it"
    return batch.micro_batch * (batch.accumulation or 1) * resources.gpus * resources.nodes
