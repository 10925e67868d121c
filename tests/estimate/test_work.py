from collections import Counter

import pytest

from estimate.disk import disk
from estimate.work import Lengths, largest_row, usable_lengths, work
from tests.estimate.llamas import model, recipe


def test_what_is_dropped_at_a_length_is_no_example() -> None:
    lengths = Lengths(
        longest=Counter({10: 2, 50: 3, 90: 1, 5: 1}),
        first=Counter({4: 4, 40: 1, 80: 1, 2**31: 1}),
        supervised_fraction=0.5,
        examples=7,
    )
    # The one of 5 has nothing to learn, and that of 90 begins to be learned at 80.
    assert usable_lengths(lengths, 60) == [10, 10, 50, 50, 50]
    assert usable_lengths(lengths, 30) == [10, 10, 30, 30]


@pytest.mark.parametrize(("schedule", "steps", "tokens"), [({}, 39, 9000), ({"max_steps": 4}, 4, 960)])
def test_steps_are_the_trainers_and_tokens_those_that_they_go_through(
    schedule: dict[str, int], steps: int, tokens: int
) -> None:
    given = recipe(schedule=schedule)
    done = work(given, 100, [30] * 100, ranks=1)
    assert (done.steps, done.window, done.train_examples) == (steps, 8, 100)
    assert done.tokens == tokens


def test_without_lengths_there_are_steps_and_no_tokens() -> None:
    assert work(recipe(), 100, None, ranks=2).tokens is None
    assert work(recipe(), 100, None, ranks=2).window == 16


def test_the_largest_row_is_the_largest_that_any_rank_is_dealt() -> None:
    given, cut = recipe(batch={"micro_batch_size": 2, "effective_batch_size": 8}), [1] * 60 + [100] * 4
    row = largest_row(given, cut, 0.25, ranks=2)
    assert row.documents == 2
    assert row.tokens in (101, 200)
    assert row.supervised == -(-row.tokens // 4)
    every = [
        recipe(batch={"micro_batch_size": 8}),
        recipe(batch={"micro_batch_size": "auto", "effective_batch_size": 8}),
    ]
    assert [largest_row(each, [100] * 64, 1.0, 1).tokens for each in every] == [800, 100]


def test_disk_is_the_adapters_of_all_checkpoints_and_the_states_that_are_kept() -> None:
    given = recipe(checkpointing={"every_steps": 10, "keep_training_checkpoints": 1})
    trained = model(given).trained
    found = disk(given, trained, steps=41, ranks=1, base_numbers=100)
    assert found.adapter == pytest.approx(4 * trained.parameters, rel=1e-3)
    assert found.adapters == 5 * found.adapter
    assert found.training_checkpoints == pytest.approx(2 * 12 * trained.parameters, rel=1e-3)
    twice = disk(recipe(adapter={"init": "pissa"}), trained, steps=41, ranks=1, base_numbers=100)
    assert twice.adapters == pytest.approx(2 * found.adapter, rel=1e-3)
