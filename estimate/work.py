"""How much a run does: its steps, its tokens, and the largest micro-batch that a device gets."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from contract.order import examples_per_step, perm, rank_share, step_rows, total_steps, workload
from contract.recipe import Recipe
from estimate.activations import Row

_MOST_ROWS = 200_000
"""Examples that are dealt out to look for the largest micro-batch."""
_NEVER = 2**31


@dataclass(frozen=True)
class Lengths:
    """Of a dataset's examples, as the model's tokens."""

    longest: Counter[int]
    """How many examples have so many tokens."""
    first: Counter[int]
    """How many examples have so many before the first that is learned."""
    supervised_fraction: float
    """Of all tokens: those that are learned."""
    examples: int
    """Of the whole file, of which these may be the first."""


@dataclass(frozen=True)
class Work:
    steps: int
    window: int
    """Examples of one step, on all devices."""
    train_examples: int
    tokens: int | None
    """That go through the model in training, each as often as it comes; None where nobody has counted them."""


def usable_lengths(lengths: Lengths, max_length: int) -> list[int]:
    """Tokens of each example, cut; without those that have nothing to learn left."""
    dropped = sum(count for first, count in lengths.first.items() if first >= max_length)
    cut = sorted(min(length, max_length) for length in lengths.longest.elements())
    # What begins after max_length is among the longest.
    never = lengths.first[_NEVER]
    return cut[never : len(cut) - (dropped - never)]


def work(recipe: Recipe, examples: int, cut: Sequence[int] | None, ranks: int) -> Work:
    """`examples` are those of the file, `cut` the usable lengths of those that were measured. Raises InputError where
    the split leaves none to train on."""
    measured = None if cut is None else len(cut)
    planned = workload(recipe, examples, ranks)
    tokens = None if not measured else round(planned.examples * sum(cut or ()) / measured)
    return Work(planned.steps, planned.window, planned.train_examples, tokens)


def largest_row(recipe: Recipe, cut: Sequence[int], share: float, ranks: int) -> Row:
    """As the seed deals the lengths out to the steps and the ranks: not the very examples, whose places in the file are
    not kept, but as many draws of the same lengths. "auto" is taken at its least, one."""
    count = len(cut)
    size = examples_per_step(recipe.batch, ranks)
    micro_batch = 1 if recipe.batch.micro_batch_size == "auto" else recipe.batch.micro_batch_size
    steps = min(total_steps(recipe, count, size), max(1, _MOST_ROWS // size))
    order = perm(recipe.seed, -2, count)
    best: list[int] = []
    for step in range(1, steps + 1):
        lengths = [cut[order[row]] for row in step_rows(recipe.seed, step, count, size)]
        for rank in range(min(ranks, len(lengths))):
            for part in rank_share(lengths, rank, ranks, micro_batch):
                best = max(best, list(part), key=sum)
    tokens = sum(best)
    return Row(tokens=tokens, documents=len(best), supervised=math.ceil(share * tokens))
