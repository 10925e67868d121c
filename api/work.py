"""How much a recipe trains, as far as can be known before it does."""

from contract.order import examples_per_step, examples_taken, held_out, total_steps
from contract.recipe import Recipe


def examples_to_train(recipe: Recipe, rows: int) -> int:
    """Examples of a dataset of `rows` that a run goes through, one of each epoch counted each time;
    `evaluation.patience` may end the run before. Raises InputError where the split leaves none to train on."""
    count = rows - held_out(rows, recipe.evaluation.fraction)
    size = examples_per_step(recipe, recipe.resources.gpus * recipe.resources.nodes)
    return examples_taken(count, size, total_steps(recipe, count, size))
