"""Requests of the OpenAI-compatible API, and the recipes that they become."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.errors import InvalidParameter
from contract import patterns
from contract.method import LEARNING_RATES
from contract.tracking import WandbTag

_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=patterns.TEXT)]
_FileId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)]
_Auto = Literal["auto"]

CHECKPOINTS = 3
"""Number of a job's checkpoints that are kept, its model included."""


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class RequestedHyperparameters(RequestModel):
    n_epochs: _Auto | Annotated[int, Field(ge=1, le=1000)] = "auto"
    batch_size: _Auto | Annotated[int, Field(ge=1, le=1_000_000)] = "auto"
    """Examples of one optimizer step."""
    learning_rate_multiplier: _Auto | Annotated[float, Field(gt=0, le=10_000)] = "auto"
    """Multiplies the default learning rate of the method."""


class DpoHyperparameters(RequestedHyperparameters):
    beta: _Auto | Annotated[float, Field(gt=0, le=2)] = "auto"


class Supervised(RequestModel):
    hyperparameters: RequestedHyperparameters | None = None


class Dpo(RequestModel):
    hyperparameters: DpoHyperparameters | None = None


class RequestedMethod(RequestModel):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None


class WandbIntegration(RequestModel):
    project: Annotated[str, StringConstraints(pattern=patterns.WANDB_NAME)]
    name: _FileId | None = None
    """Name of the run."""
    entity: Annotated[str, StringConstraints(pattern=patterns.WANDB_NAME)] | None = None
    tags: list[WandbTag] | None = None


class Integration(RequestModel):
    """A run in Weights & Biases. Its API key is the owner's secret "wandb"."""

    type: Literal["wandb"]
    wandb: WandbIntegration


class FineTuningJobRequest(RequestModel):
    model: _Text
    training_file: _FileId
    validation_file: _FileId | None = None
    suffix: Annotated[str, StringConstraints(pattern=patterns.SUFFIX)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    method: RequestedMethod | None = None
    hyperparameters: RequestedHyperparameters | None = None
    """The older place of method.supervised.hyperparameters."""
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(max_length=64, pattern=patterns.TEXT)],
                Annotated[str, StringConstraints(max_length=512, pattern=patterns.TEXT)],
            ],
            Field(max_length=16),
        ]
        | None
    ) = None
    recipe: dict[str, Any] | None = None
    """Further fields of our own recipe; the SDK sends it by extra_body={"recipe": {...}}. The fields above may not be
    repeated in it."""


_GRADERS = (
    'use "supervised", or "dpo": have the model answer each prompt twice, grade both answers, and give them as '
    "preferred_output and non_preferred_output"
)


def hyperparameters_of(body: FineTuningJobRequest) -> RequestedHyperparameters:
    """Those of the method. Raises InvalidParameter for an unsupported method, for the section of another one, and for
    two different values."""
    method = body.method or RequestedMethod(type="supervised")
    if method.type == "reinforcement":
        raise InvalidParameter("method.type", method.type, _GRADERS)
    for name in ("supervised", "dpo", "reinforcement"):
        if name != method.type and getattr(method, name) is not None:
            raise InvalidParameter(f"method.{name}", "", f'leave it out, or set method.type to "{name}"')
    section = method.dpo if method.type == "dpo" else method.supervised
    of_method = section.hyperparameters if section else None
    older = body.hyperparameters
    if of_method is not None and older is not None:
        both = of_method.model_dump(include=set(RequestedHyperparameters.model_fields))
        if older.model_dump() != both:
            wanted = f"leave it out: method.{method.type}.hyperparameters says it too, and otherwise"
            raise InvalidParameter("hyperparameters", "", wanted)
    return of_method or older or RequestedHyperparameters()


def recipe_of(body: FineTuningJobRequest, start_from: tuple[str, str] | None) -> dict[str, Any]:
    """The recipe; `start_from` has the base model and the adapter if `model` is a fine-tuned one. Raises
    InvalidParameter for a value that is given twice."""
    recipe = dict(body.recipe or {})
    model, adapter = start_from or (body.model, None)
    _say(recipe, "model", (), model, "model")
    _say(recipe, "dataset", (), body.training_file, "training_file")
    if body.validation_file is not None:
        _say(recipe, "evaluation.dataset", (), body.validation_file, "validation_file")
    if body.suffix is not None:
        recipe.setdefault("name", body.suffix)
    if body.seed is not None:
        _say(recipe, "seed", (), body.seed, "seed")
    if adapter is not None:
        _say(recipe, "adapter.start_from", (), adapter, "model")
    for integration in body.integrations or ():
        wandb = integration.wandb
        place = {"project": wandb.project, "entity": wandb.entity, "run_name": wandb.name, "tags": wandb.tags or []}
        _say(recipe, "tracking.wandb", (), place, "integrations")
    words = hyperparameters_of(body)
    if words.n_epochs != "auto":
        _say(recipe, "schedule.epochs", (), words.n_epochs, "n_epochs")
    if words.batch_size != "auto":
        _say(recipe, "batch.effective_batch_size", ("gradient_accumulation_steps",), words.batch_size, "batch_size")
        recipe["batch"].setdefault("micro_batch_size", min(8, words.batch_size))
    if body.method is not None:
        _say_method(recipe, body.method.type, words)
    if words.learning_rate_multiplier != "auto":
        rate = LEARNING_RATES.get(_method_of(recipe), LEARNING_RATES["sft"]) * words.learning_rate_multiplier
        _say(recipe, "optimizer.learning_rate", (), rate, "learning_rate_multiplier")
    _keep_each_epoch(recipe)
    return recipe


def _say_method(recipe: dict[str, Any], requested: str, words: RequestedHyperparameters) -> None:
    if requested == "dpo":
        _say(recipe, "method.type", (), "dpo", "method.type")
        if isinstance(words, DpoHyperparameters) and words.beta != "auto":
            _say(recipe, "method.beta", (), words.beta, "beta")
    elif _method_of(recipe) != "sft":
        raise InvalidParameter("recipe.method", recipe["method"], "leave it out, or leave out method of the request")


def _method_of(recipe: dict[str, Any]) -> Any:
    """The name that the recipe gives; a wrong one is refused with the recipe."""
    method = recipe.get("method", "sft")
    name = method.get("type", "sft") if isinstance(method, dict) else method
    return name if isinstance(name, str) else "sft"


def _keep_each_epoch(recipe: dict[str, Any]) -> None:
    """OpenAI keeps a checkpoint of each of the last three epochs. A recipe that says when to save, or how many to keep,
    is as it says."""
    given = recipe.get("checkpointing", {})
    if not isinstance(given, dict):
        return  # the recipe is refused for it
    defaults = {"keep_adapters": CHECKPOINTS}
    if not given.keys() & {"every_steps", "every_epochs", "every_minutes"}:
        defaults["every_epochs"] = 1
    recipe["checkpointing"] = defaults | given


def _say(recipe: dict[str, Any], path: str, besides: tuple[str, ...], value: Any, field: str) -> None:
    """Writes a field of the recipe. Raises InvalidParameter if the request's own recipe already has it, or one of
    `besides` in its section."""
    *sections, name = path.split(".")
    section = recipe
    for each in sections:
        inner = section.get(each, {})
        if not isinstance(inner, dict):
            raise InvalidParameter(f"recipe.{each}", inner, "give a JSON object")
        section[each] = section = dict(inner)
    for each in (name, *besides):
        if each in section:
            where = ".".join((*sections, each))
            raise InvalidParameter(f"recipe.{where}", section[each], f"leave it out: {field} says it")
    section[name] = value
