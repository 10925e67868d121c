from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contract.order import (
    examples_processed,
    permutation,
    rank_micro_batches,
    rows_of_step,
    split_rows,
    steps_per_epoch,
    total_steps,
)
from contract.recipe import Recipe

counts = st.integers(1, 60)
windows = st.integers(1, 20)
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(0, 5), counts)
def test_epoch_order_depends_on_seed_and_epoch(seed: int, epoch: int, n: int) -> None:
    assert sorted(permutation(seed, epoch, n)) == list(range(n))
    assert permutation(seed, epoch, n) == permutation.__wrapped__(seed, epoch, n)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    assert len({permutation(seed, epoch, 50) for seed in range(3) for epoch in range(3)}) == 9


@given(seeds, counts, windows)
def test_steps_of_an_epoch_take_every_example_once(seed: int, n: int, window: int) -> None:
    steps = range(1, steps_per_epoch(n, window) + 1)
    assert sorted(row for step in steps for row in rows_of_step(seed, step, n, window)) == list(range(n))


@given(st.lists(st.integers(), max_size=40), st.integers(1, 5), st.integers(1, 7))
def test_ranks_share_a_step_without_overlap(rows: list[int], ranks: int, size: int) -> None:
    shares = [rank_micro_batches(rows, rank, ranks, size) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(micro_batch) <= size for share in shares for micro_batch in share)
    assert sorted(row for share in shares for micro_batch in share for row in micro_batch) == sorted(rows)


@given(seeds, st.integers(2, 200), st.floats(0.001, 0.9))
def test_split_leaves_rows_on_both_sides(seed: int, n: int, share: float) -> None:
    train, held_out = split_rows(seed, n, share)
    assert train
    assert held_out
    assert sorted(train + held_out) == list(range(n))


def test_fractional_epochs_are_whole_steps() -> None:
    def steps(**schedule: float) -> int:
        return total_steps(
            Recipe.model_validate({"model": "m", "dataset": "d", "schedule": schedule}),
            count=10,
            effective_batch_size=4,
        )

    assert steps(epochs=1) == 3
    assert steps(epochs=0.5) == 2
    assert steps(epochs=0.001) == 1
    assert steps(epochs=2, max_steps=5) == 5
    assert steps(epochs=2, max_steps=50) == 6


def test_max_steps_override_and_epochs_default() -> None:
    def steps(schedule: dict[str, Any]) -> int:
        recipe = Recipe.model_validate({"model": "m", "dataset": "d", "schedule": schedule})
        stored = Recipe.model_validate_json(recipe.model_dump_json())
        assert stored == recipe
        return total_steps(stored, count=10, effective_batch_size=4)

    assert steps({}) == steps({"epochs": None, "max_steps": None}) == 9
    assert steps({"max_steps": 100}) == steps({"max_steps": 100, "epochs": None}) == 100
    assert steps({"max_steps": 2}) == 2
    # As an earlier release stored it, which wrote its default out.
    assert steps({"max_steps": 100, "epochs": 3}) == 9


@given(seeds, counts, windows, st.integers(1, 200))
def test_examples_taken_are_those_of_the_steps(seed: int, n: int, window: int, steps: int) -> None:
    assert examples_processed(n, window, steps) == sum(
        len(rows_of_step(seed, s, n, window)) for s in range(1, steps + 1)
    )
