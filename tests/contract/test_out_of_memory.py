from typing import Any

import pytest

from contract.out_of_memory import smaller_batch
from contract.recipe import Batch
from tests.fake_trainer import started


def tried_next(batch: dict[str, Any], **told: int) -> Batch | None:
    begun = started(total=10, resumed=0).model_copy(update={"train_examples": 1000, **told})
    return smaller_batch(Batch.model_validate(batch), begun)


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ({"micro_batch_size": 6}, {"micro_batch_size": 6, "effective_batch_size": 6}),
        (
            {"micro_batch_size": 6, "gradient_accumulation_steps": 4},
            {"micro_batch_size": 6, "effective_batch_size": 48, "world_size": 2},
        ),
        (
            {"micro_batch_size": 6, "effective_batch_size": 40},
            {"micro_batch_size": 6, "effective_batch_size": 40, "world_size": 3},
        ),
        ({"micro_batch_size": "auto", "effective_batch_size": 40}, {"micro_batch_size": 6, "effective_batch_size": 40}),
    ],
)
def test_the_next_try_takes_half_as_many_examples_at_once_and_as_many_in_each_step(
    batch: dict[str, Any], told: dict[str, int]
) -> None:
    after = tried_next(batch | {"max_length": 77}, **told)
    assert after == Batch(micro_batch_size=3, effective_batch_size=told["effective_batch_size"], max_length=77)
    assert Batch.model_validate(after.model_dump()) == after


@pytest.mark.parametrize(
    ("told", "micro_batch"),
    [({"effective_batch_size": 8, "world_size": 2}, 2), ({"effective_batch_size": 100, "train_examples": 7}, 3)],
)
def test_half_is_of_what_a_rank_has_to_take_at_once(told: dict[str, int], micro_batch: int) -> None:
    after = tried_next(
        {"micro_batch_size": 32, "effective_batch_size": told["effective_batch_size"]}, micro_batch_size=32, **told
    )
    assert after is not None
    assert after.micro_batch_size == micro_batch


@pytest.mark.parametrize(
    "told", [{"micro_batch_size": 1, "effective_batch_size": 8}, {"micro_batch_size": 8, "effective_batch_size": 1}]
)
def test_less_than_one_example_there_is_not(told: dict[str, int]) -> None:
    assert (
        tried_next(
            {"micro_batch_size": told["micro_batch_size"], "effective_batch_size": told["effective_batch_size"]}, **told
        )
        is None
    )
