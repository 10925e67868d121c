"""Warns where a recipe does less than it says, as far as the number of its examples shows."""

from collections.abc import Iterator

from contract.order import steps_per_epoch, workload
from contract.recipe import Recipe


def shortfalls(recipe: Recipe, rows: int) -> list[str]:
    """A warning for each field that has less effect than it says, with a dataset of `rows` examples. Raises InputError
    if the split leaves none to train on."""
    train, size, steps = workload(recipe, rows)
    per_epoch = steps_per_epoch(train, size)
    found = [
        *_end_shortfalls(recipe, steps, per_epoch),
        *_step_shortfalls(recipe, steps, per_epoch),
        *_evaluation_shortfalls(recipe, steps, per_epoch),
        *_example_shortfalls(recipe, train, rows - train),
    ]
    return [f"{field}: got {given:.15g}; {what}" for field, given, what in found]


Shortfall = tuple[str, float, str]


def _end_shortfalls(recipe: Recipe, steps: int, per_epoch: int) -> Iterator[Shortfall]:
    epochs, most = recipe.schedule.epochs, recipe.schedule.max_steps
    if epochs is None or most is None:
        return
    if steps < most:
        end = f"the run ends after {steps} steps, which are {epochs:g} epochs; leave schedule.epochs out for more"
        yield "schedule.max_steps", most, end
    elif steps < epochs * per_epoch:
        end = f"the run ends after {steps / per_epoch:.2f}, at schedule.max_steps {most}; leave that out for more"
        yield "schedule.epochs", epochs, end


def _step_shortfalls(recipe: Recipe, steps: int, per_epoch: int) -> Iterator[Shortfall]:
    warmup, saving = recipe.schedule.warmup_steps, recipe.checkpointing.every_steps
    epochs = recipe.checkpointing.every_epochs
    if warmup is not None and warmup > steps:
        peak = f"the run has {steps} steps, so the learning rate stays below optimizer.learning_rate"
        yield "schedule.warmup_steps", warmup, peak
    if saving is not None and saving > steps:
        ending = f"the run has {steps} steps, so it saves the adapter only at its end"
        yield "checkpointing.every_steps", saving, ending
    if epochs is not None and epochs * per_epoch > steps:
        ending = f"the run has {steps / per_epoch:.3g} epochs, so it saves the adapter only at its end"
        yield "checkpointing.every_epochs", epochs, ending


def _evaluation_shortfalls(recipe: Recipe, steps: int, per_epoch: int) -> Iterator[Shortfall]:
    evaluation = recipe.evaluation
    if not evaluation.holds_out:
        return
    if evaluation.every_steps is not None and evaluation.every_steps > steps:
        alone = f"the run has {steps} steps, so it evaluates only at its start and end"
        yield "evaluation.every_steps", evaluation.every_steps, alone
    evaluations = (steps - 1) // (evaluation.every_steps or per_epoch)
    if evaluation.patience is not None and evaluation.patience > evaluations:
        never = f"there are {evaluations} evaluations before the run's last step, so it never ends early"
        yield "evaluation.patience", evaluation.patience, never


def _example_shortfalls(recipe: Recipe, train: int, held: int) -> Iterator[Shortfall]:
    batch, evaluation = recipe.batch, recipe.evaluation
    if batch.effective_batch_size is not None and batch.effective_batch_size > train:
        yield (
            "batch.effective_batch_size",
            batch.effective_batch_size,
            f"there are {train} examples to train on, so a step takes no more",
        )
    if evaluation.fraction and evaluation.samples > held:
        yield (
            "evaluation.samples",
            evaluation.samples,
            f"{held} examples are held out, so there are only {held} answers",
        )
