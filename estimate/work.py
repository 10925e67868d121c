"""How much work a run is: its steps, its tokens, and the largest micro-batch that a device gets."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from contract.order import examples_per_step, permutation, rank_micro_batches, rows_of_step, total_steps, workload
from contract.recipe import Recipe
from estimate.inputs import PackedRow

_MAX_ROWS = 200_000
"""Maximum number of examples dealt out to find the largest micro-batch."""
_NOT_SUPERVISED = 2**31


@dataclass(frozen=True)
class LengthCounts:
    """Token counts of a dataset's examples under the model's tokenizer."""

    longest: Counter[int]
    """Number of examples by their tokens."""
    first: Counter[int]
    """Number of examples by their tokens before the first learned one."""
    supervised_fraction: float
    """Fraction of all tokens that is learned."""
    examples: int
    """Number of examples in the whole file, of which the measured ones may be only the first."""


@dataclass(frozen=True)
class TrainingWork:
    steps: int
    effective_batch_size: int
    """Examples of one step, on all devices."""
    train_examples: int
    tokens: int | None
    """Tokens that the model processes in training, counting repeats; None if they were not measured. Of pairs, those of
    the longer answer are counted twice."""
    reference_tokens: int | None = 0
    """Tokens of a pass without gradients before the first step; 0 for a method without one."""


def usable_lengths(lengths: LengthCounts, max_length: int) -> list[int]:
    """Tokens of each example after the cut, without examples that have nothing to learn left."""
    dropped = sum(count for first, count in lengths.first.items() if first >= max_length)
    usable = sorted(min(length, max_length) for length in lengths.longest.elements())
    # Examples that begin after max_length are among the longest.
    unsupervised = lengths.first[_NOT_SUPERVISED]
    return usable[unsupervised : len(usable) - (dropped - unsupervised)]


def training_work(recipe: Recipe, examples: int, usable: Sequence[int] | None, ranks: int) -> TrainingWork:
    """`examples` is the number in the file, and `usable` are the usable lengths of the measured ones. Raises InputError
    if the split leaves none to train on."""
    measured = None if usable is None else len(usable)
    planned = workload(recipe, examples, ranks)
    if not measured:
        return TrainingWork(planned.steps, planned.effective_batch_size, planned.train_examples, None, None)
    per_example = recipe.method.documents * sum(usable or ()) / measured
    # Of a rated answer, that of another example is measured too. Held-out examples are among them.
    answers = 0 if not recipe.method.needs_reference else 2 // recipe.method.documents
    return TrainingWork(
        planned.steps,
        planned.effective_batch_size,
        planned.train_examples,
        round(planned.examples * per_example),
        round(examples * answers * per_example),
    )


def largest_row(recipe: Recipe, usable: Sequence[int], share: float, ranks: int) -> PackedRow:
    """Deals lengths out to steps and ranks as the seed does. These are not the run's own examples, whose positions in
    the file are not kept, but as many draws of the same lengths. "auto" counts as its minimum, one."""
    count = len(usable)
    size = examples_per_step(recipe.batch, ranks)
    micro_batch = 1 if recipe.batch.micro_batch_size == "auto" else recipe.batch.micro_batch_size
    steps = min(total_steps(recipe, count, size), max(1, _MAX_ROWS // size))
    order = permutation(recipe.seed, -2, count)
    best: list[int] = []
    for step in range(1, steps + 1):
        lengths = [usable[order[row]] for row in rows_of_step(recipe.seed, step, count, size)]
        for rank in range(min(ranks, len(lengths))):
            for part in rank_micro_batches(lengths, rank, ranks, micro_batch):
                best = max(best, list(part), key=sum)
    tokens = recipe.method.documents * sum(best)
    documents = recipe.method.documents * len(best)
    return PackedRow(tokens=tokens, documents=documents, supervised=math.ceil(share * tokens))
