"""Which examples each step takes: pure functions of the seed and the step, so that a run can continue from any step."""

import functools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from contract.failure import FailureCode, InputError
from contract.recipe import Batch, Recipe

T = TypeVar("T")


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """A permutation of 0 .. count - 1, a different one for each epoch."""
    order = list(range(count))
    random.Random(f"finetuned {seed} {epoch}").shuffle(order)
    return tuple(order)


def split_rows(seed: int, count: int, share: float) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out, both in file order. Raises InputError if none is left to train on."""
    held = held_out_count(count, share)
    shuffled = permutation(seed, -1, count)
    return sorted(shuffled[held:]), sorted(shuffled[:held])


def held_out_count(count: int, share: float) -> int:
    """Number of held-out rows. Raises InputError if none is left to train on."""
    held = max(1, int(count * share)) if share > 0 else 0
    if held >= count:
        raise InputError(
            FailureCode.DATASET_INVALID,
            f"evaluation.fraction: the dataset has {count} usable row; one to evaluate leaves none to train on",
            "evaluation.fraction",
        )
    return held


def steps_per_epoch(count: int, effective_batch_size: int) -> int:
    """Steps of one epoch. Its last step may have fewer examples."""
    return math.ceil(count / effective_batch_size)


def examples_per_step(batch: Batch, ranks: int) -> int:
    """Examples of one optimizer step, on all ranks together."""
    if batch.effective_batch_size is not None:
        return batch.effective_batch_size
    assert batch.micro_batch_size != "auto", "the contract requires batch.effective_batch_size with it"
    return batch.micro_batch_size * (batch.gradient_accumulation_steps or 1) * ranks


def total_steps(recipe: Recipe, count: int, effective_batch_size: int) -> int:
    """Optimizer steps of a run on `count` examples, at least 1. A fraction of an epoch is rounded up to a whole step.
    If epochs and max_steps are given, the smaller number of steps counts."""
    epochs, most = recipe.schedule.epochs, recipe.schedule.max_steps
    ends = [] if epochs is None else [max(1, math.ceil(epochs * steps_per_epoch(count, effective_batch_size) - 1e-9))]
    return min([*ends, most] if most is not None else ends)


def examples_processed(count: int, effective_batch_size: int, steps: int) -> int:
    """Number of examples in so many steps, counting repeats."""
    epochs, rest = divmod(steps, steps_per_epoch(count, effective_batch_size))
    return epochs * count + min(count, rest * effective_batch_size)


class Workload(NamedTuple):
    """What a run trains, as far as can be known before it does; `evaluation.patience` may end it earlier."""

    train_examples: int
    """Without those that are held out."""
    effective_batch_size: int
    """Examples of one optimizer step, on all ranks together."""
    steps: int

    @property
    def examples(self) -> int:
        """Examples that all steps take, one of each epoch counted each time."""
        return examples_processed(self.train_examples, self.effective_batch_size, self.steps)


def workload(recipe: Recipe, rows: int, ranks: int | None = None) -> Workload:
    """`rows` are the examples of the dataset's file; `ranks` are as many as the recipe has devices where they are not
    given. Raises InputError when the split leaves none to train on."""
    resources = recipe.resources
    train = rows - held_out_count(rows, recipe.evaluation.fraction)
    effective_batch_size = examples_per_step(recipe.batch, resources.gpus * resources.nodes if ranks is None else ranks)
    return Workload(train, effective_batch_size, total_steps(recipe, train, effective_batch_size))


def rows_of_step(seed: int, step: int, count: int, effective_batch_size: int) -> list[int]:
    """The examples of optimizer step `step`, counted from 1, on all ranks together."""
    epoch, index = divmod(step - 1, steps_per_epoch(count, effective_batch_size))
    return list(permutation(seed, epoch, count)[index * effective_batch_size : (index + 1) * effective_batch_size])


def rank_micro_batches(items: Sequence[T], rank: int, world_size: int, micro_batch: int) -> list[Sequence[T]]:
    """This rank's micro-batches. Every rank gets the same number, so that the ranks' collectives match; the last ones
    may be short or empty."""
    mine = items[rank::world_size]
    micro_batches = math.ceil(math.ceil(len(items) / world_size) / micro_batch)
    return [mine[i * micro_batch : (i + 1) * micro_batch] for i in range(micro_batches)]
