from typing import Any

from contract.recipe import Recipe
from estimate.changes import changes_that_fit
from tests.estimate.llamas import recipe


def suggested(given: Recipe, fits: Any, devices: int = 1) -> list[dict[str, Any]]:
    return changes_that_fit(given, 1, devices, fits)


def test_the_gentlest_of_each_change_that_fits_is_told_in_the_order_of_what_it_costs() -> None:
    def fits(changed: Recipe) -> bool:
        batch = changed.batch
        small = batch.micro_batch_size != "auto" and batch.micro_batch_size * batch.max_length <= 2 * 2048
        divided = changed.parallel.zero_stage == 3 and changed.resources.gpus == 4
        return small or changed.gradient_checkpointing or changed.base_bits == 4 or divided

    steps = {"gradient_accumulation_steps": None, "effective_batch_size": 8}
    assert suggested(recipe(), fits, devices=4) == [
        {"batch": {"micro_batch_size": 2, **steps}},
        {"gradient_checkpointing": True},
        {"base_bits": 4},
        {
            "resources": {"gpus": 4},
            "parallel": {"engine": "deepspeed", "zero_stage": 3},
            "batch": steps,
        },
        {"batch": {"max_length": 512}},
    ]


def test_where_none_is_enough_as_many_as_it_takes_are_told_together() -> None:
    def fits(changed: Recipe) -> bool:
        return changed.batch.micro_batch_size == 1 and changed.gradient_checkpointing

    expected = {
        "batch": {"micro_batch_size": 1, "gradient_accumulation_steps": None, "effective_batch_size": 8},
        "gradient_checkpointing": True,
    }
    assert suggested(recipe(), fits) == [expected]


def test_what_does_not_go_with_the_recipe_is_not_suggested() -> None:
    given = recipe(parallel={"engine": "fsdp"}, gradient_checkpointing=True, batch={"micro_batch_size": 1})
    assert suggested(given, lambda changed: changed.base_bits == 4) == []


def test_nothing_is_suggested_where_nothing_helps() -> None:
    assert suggested(recipe(), lambda changed: False, devices=8) == []
