"""The recipe that OpenAI's fields come to."""

from typing import Any

import pytest

from api.errors import InvalidParameter
from api.openai.mapping import FineTuningJobRequest, recipe_of
from contract.recipe import Recipe
from contract.tracking import WandbTracking
from tests.support.jobs import make_recipe


def recipe(start_from: tuple[str, str] | None = None, **fields: Any) -> Recipe:
    requested = FineTuningJobRequest.model_validate({"model": "tiny", "training_file": "rows.jsonl", **fields})
    return Recipe.model_validate(recipe_of(requested, start_from))


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def test_dpo_is_a_method_of_the_recipe() -> None:
    auto = recipe(method={"type": "dpo"})
    assert auto == recipe(method=dpo(beta="auto", n_epochs="auto", learning_rate_multiplier="auto"))
    assert (auto.method.type, auto.method.beta, auto.optimizer.learning_rate) == ("dpo", 0.1, 5e-6)
    given = recipe(method=dpo(beta=0.5, learning_rate_multiplier=2, n_epochs=1, batch_size=4))
    assert (given.method.beta, given.optimizer.learning_rate, given.schedule.epochs) == (0.5, 1e-5, 1)
    assert given.batch.effective_batch_size == 4
    twice = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1}
    assert recipe(method=dpo(**twice), hyperparameters=twice) == recipe(method=dpo(**twice))
    further = recipe(method={"type": "dpo"}, recipe={"method": {"loss": "ipo"}})
    assert (further.method.type, further.method.loss) == ("dpo", "ipo")


@pytest.mark.parametrize("given", ["orpo", {"type": "orpo"}, {"type": "dpo"}, "dpo"])
def test_multiplier_is_of_the_learning_rate_of_the_method(given: Any) -> None:
    requested = recipe(recipe={"method": given}, hyperparameters={"learning_rate_multiplier": 2})
    assert requested.optimizer.learning_rate == 1e-5


def method(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def test_auto_is_what_a_recipe_has_by_itself() -> None:
    auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
    plain = make_recipe(checkpointing={"every_epochs": 1, "keep_adapters": 3})
    assert recipe() == recipe(method=method(**auto)) == recipe(hyperparameters=auto) == plain


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"every_steps": 5}, {"every_steps": 5, "keep_adapters": 3}),
        ({"keep_adapters": 9}, {"every_epochs": 1, "keep_adapters": 9}),
        ({"every_minutes": 5, "keep_adapters": None}, {"every_minutes": 5}),
    ],
)
def test_recipe_decides_which_checkpoints_stay(given: dict[str, Any], found: dict[str, Any]) -> None:
    assert recipe(recipe={"checkpointing": given}) == make_recipe(checkpointing=found)


def test_hyperparameters_map_to_recipe_fields() -> None:
    for fields in (
        {"method": method(n_epochs=5, batch_size=16, learning_rate_multiplier=0.5)},
        {"hyperparameters": {"n_epochs": 5, "batch_size": 16, "learning_rate_multiplier": 0.5}},
    ):
        requested = recipe(**fields)
        assert requested.schedule.epochs == 5
        assert (requested.batch.effective_batch_size, requested.batch.micro_batch_size) == (16, 8)
        assert requested.optimizer.learning_rate == pytest.approx(1e-4)


def test_batch_smaller_than_a_micro_batch_is_one() -> None:
    batch = recipe(method=method(batch_size=3)).batch
    assert (batch.effective_batch_size, batch.micro_batch_size) == (3, 3)


INTEGRATED: dict[str, Any] = {"integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["a"]}}]}


def test_integration_is_a_tracker() -> None:
    place = recipe(**INTEGRATED, recipe={"tracking": {"tensorboard": True}}).tracking
    assert (place.tensorboard, place.wandb) == (True, WandbTracking(project="p", tags=["a"]))


def test_recipe_rides_along() -> None:
    requested = recipe(recipe={"adapter": {"r": 4}, "batch": {"max_length": 64}}, method=method(batch_size=2), seed=7)
    assert (requested.adapter.r, requested.batch.max_length, requested.batch.effective_batch_size, requested.seed) == (
        4,
        64,
        2,
        7,
    )


def test_fine_tuned_model_is_trained_further() -> None:
    job = "job_" + "0" * 24
    further = recipe(start_from=("tiny", job), model="ft:tiny:anna::" + "0" * 24)
    assert (further.model, further.adapter.start_from) == ("tiny", job)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"method": {"type": "reinforcement"}}, "method.type", "preferred_output and non_preferred_output"),
        ({"recipe": {"method": "orpo"}, "method": method()}, "recipe.method", "leave out method of the request"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", 'set method.type to "supervised"'),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo", 'set method.type to "dpo"'),
        ({"recipe": {"method": {"beta": 0.2}}, "method": dpo(beta=0.1)}, "recipe.method.beta", "beta says it"),
        (
            {**INTEGRATED, "recipe": {"tracking": {"wandb": {"project": "q"}}}},
            "recipe.tracking.wandb",
            "integrations says it",
        ),
        ({"method": method(n_epochs=2), "hyperparameters": {"n_epochs": 3}}, "hyperparameters", "otherwise"),
        ({"recipe": {"model": "other"}}, "recipe.model", "model says it"),
        ({"recipe": {"dataset": "other"}}, "recipe.dataset", "training_file says it"),
        ({"recipe": {"seed": 1}, "seed": 2}, "recipe.seed", "seed says it"),
        (
            {"recipe": {"schedule": {"epochs": 1}}, "method": method(n_epochs=2)},
            "recipe.schedule.epochs",
            "n_epochs says it",
        ),
        (
            {"recipe": {"batch": {"gradient_accumulation_steps": 2}}, "method": method(batch_size=2)},
            "recipe.batch.gradient_accumulation_steps",
            "batch_size says it",
        ),
        ({"recipe": {"schedule": 3}, "method": method(n_epochs=2)}, "recipe.schedule", "JSON object"),
    ],
)
def test_unsupported_hyperparameters_are_named(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words) as refused:
        recipe(**fields)
    assert refused.value.param == param
