from typing import Any

import pytest

from contract.out_of_memory import smaller_batch
from contract.recipe import Batch
from tests.support.fake_trainer import started


def tried_next(batch: dict[str, Any], **reported: int) -> Batch | None:
    begun = started(total=10, resumed=0).model_copy(update={"train_examples": 1000, **reported})
    return smaller_batch(Batch.model_validate(batch), begun)


@pytest.mark.parametrize(
    ("batch", "reported"),
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
def test_retry_halves_the_micro_batch_only(batch: dict[str, Any], reported: dict[str, int]) -> None:
    after = tried_next(batch | {"max_length": 77}, **reported)
    assert after == Batch(micro_batch_size=3, effective_batch_size=reported["effective_batch_size"], max_length=77)
    assert Batch.model_validate(after.model_dump()) == after


@pytest.mark.parametrize(
    ("reported", "micro_batch"),
    [({"effective_batch_size": 8, "world_size": 2}, 2), ({"effective_batch_size": 100, "train_examples": 7}, 3)],
)
def test_half_is_of_the_rank_share(reported: dict[str, int], micro_batch: int) -> None:
    after = tried_next(
        {"micro_batch_size": 32, "effective_batch_size": reported["effective_batch_size"]},
        micro_batch_size=32,
        **reported,
    )
    assert after is not None
    assert after.micro_batch_size == micro_batch


@pytest.mark.parametrize(
    "reported", [{"micro_batch_size": 1, "effective_batch_size": 8}, {"micro_batch_size": 8, "effective_batch_size": 1}]
)
def test_less_than_one_example_there_is_not(reported: dict[str, int]) -> None:
    assert (
        tried_next(
            {
                "micro_batch_size": reported["micro_batch_size"],
                "effective_batch_size": reported["effective_batch_size"],
            },
            **reported,
        )
        is None
    )
