from collections import Counter
from typing import Any

import pytest

from estimate.disk import estimate_disk
from estimate.work import LengthCounts, TrainingWork, largest_row, training_work, usable_lengths
from tests.estimate.llamas import model, recipe


def test_dropped_rows_are_no_examples() -> None:
    lengths = LengthCounts(
        longest=Counter({10: 2, 50: 3, 90: 1, 5: 1}),
        first=Counter({4: 4, 40: 1, 80: 1, 2**31: 1}),
        supervised_fraction=0.5,
        examples=7,
    )
    # The one of 5 has nothing to learn, and that of 90 begins to be learned at 80.
    assert usable_lengths(lengths, 60) == [10, 10, 50, 50, 50]
    assert usable_lengths(lengths, 30) == [10, 10, 30, 30]


@pytest.mark.parametrize(("schedule", "steps", "tokens"), [({}, 39, 9000), ({"max_steps": 4}, 4, 960)])
def test_steps_and_tokens_match_the_trainer(schedule: dict[str, int], steps: int, tokens: int) -> None:
    given = recipe(schedule=schedule)
    done = training_work(given, 100, [30] * 100, ranks=1)
    assert (done.steps, done.effective_batch_size, done.train_examples) == (steps, 8, 100)
    assert done.tokens == tokens


def test_without_lengths_there_are_steps_and_no_tokens() -> None:
    assert training_work(recipe(), 100, None, ranks=2).tokens is None
    assert training_work(recipe(), 100, None, ranks=2).effective_batch_size == 16


def test_work_of_pairs_has_both_answers_and_a_pass_before() -> None:
    batch = {"micro_batch_size": 4}
    recipes = [recipe(batch=batch, method=method) for method in ("sft", "dpo", "orpo", "kto")]
    works = [training_work(each, 100, [30] * 100, ranks=1) for each in recipes]
    alone = 9000
    assert [work.tokens for work in works] == [alone, 2 * alone, 2 * alone, alone]
    assert [work.reference_tokens for work in works] == [0, 100 * 60, 0, 100 * 60]
    rows = [largest_row(each, [30] * 100, 0.5, ranks=1) for each in recipes]
    assert [(row.tokens, row.documents) for row in rows] == [(120, 4), (240, 8), (240, 8), (120, 4)]


def test_largest_row_is_that_of_any_rank() -> None:
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


def test_disk_counts_adapters_and_kept_states() -> None:
    given = recipe(checkpointing={"every_steps": 10, "keep_training_checkpoints": 1})
    trained = model(given).trained
    work = TrainingWork(steps=41, effective_batch_size=8, train_examples=120, tokens=None)
    found = estimate_disk(given, trained, work, ranks=1, base_numbers=100)
    assert found.adapter == pytest.approx(4 * trained.parameters, rel=1e-3)
    assert found.adapters == 5 * found.adapter
    assert found.training_checkpoints == pytest.approx(2 * 12 * trained.parameters, rel=1e-3)
    twice = estimate_disk(recipe(adapter={"init": "pissa"}), trained, work, ranks=1, base_numbers=100)
    assert twice.adapters == pytest.approx(2 * found.adapter, rel=1e-3)


@pytest.mark.parametrize(
    ("checkpointing", "adapters"),
    [
        ({}, 1),
        ({"every_epochs": 1}, 3),  # 41 steps, 15 an epoch: after 15, 30 and 41
        ({"every_epochs": 1, "every_steps": 10}, 6),  # after 10, 15, 20, 30, 40 and 41
        ({"every_steps": 10, "keep_adapters": 2}, 3),
        ({"every_steps": 10, "keep_adapters": 9}, 5),
    ],
)
def test_disk_counts_the_adapters_that_stay(checkpointing: dict[str, Any], adapters: int) -> None:
    given = recipe(checkpointing=checkpointing)
    work = TrainingWork(steps=41, effective_batch_size=8, train_examples=120, tokens=None)
    found = estimate_disk(given, model(given).trained, work, ranks=1, base_numbers=100)
    assert found.adapters == adapters * found.adapter
