"""The examples that a job does not learn from, one at a time, to ask its model."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context, Services
from api.http.ids import LARGEST_INTEGER, JobId
from api.jobs.submission import examples_of
from contract.failure import dataset_errors_as
from contract.order import split_rows
from contract.recipe import Recipe
from dataset.held_out import HeldOutExample
from store.access.principal import Principal
from store.jobs import history, jobs


class HeldOut(BaseModel):
    index: int
    count: int
    """Number of held-out examples that this route knows."""
    example: HeldOutExample | None
    reason: str | None
    """Why there is no example."""


router = APIRouter(tags=["held-out"])


@router.get("/jobs/{job_id}/held-out")
def get_held_out(
    services: Context, who: Who, job_id: JobId, index: Annotated[int, Query(ge=0, le=LARGEST_INTEGER)] = 0
) -> HeldOut:
    """A held-out example as a question, with its own answer; `index` is from 0."""
    with services.sessions.begin() as session:
        recipe = Recipe.model_validate(jobs.get(session, job_id, who.scope).recipe)
        started = history.started(session, job_id)
    reason = _why_none(recipe, started)
    if reason is not None:
        return HeldOut(index=index, count=0, example=None, reason=reason)
    return _read(services, who, recipe, index)


def _why_none(recipe: Recipe, started: dict[str, int]) -> str | None:
    if not recipe.evaluation.holds_out:
        return "The job holds no example out: its recipe has neither evaluation.fraction nor evaluation.dataset."
    if not started:
        return "The job has not read its examples yet; ask again once it trains."
    dropped = started["dropped_examples"]
    if dropped and recipe.evaluation.dataset is None:
        # The split is one of the examples that are left, and only the trainer knows which these are.
        return (
            f"Some examples were too long to learn from ({dropped}), so only the trainer knows which of the others are "
            "held out; raise batch.max_length, or give evaluation.dataset."
        )
    return None


_NO_QUESTION = "The example is plain text, which asks nothing."


def _read(services: Services, who: Principal, recipe: Recipe, index: int) -> HeldOut:
    """Raises InputError where the file has changed or is gone, DatasetNotFound, TooManyRequests, StorageUnavailable."""
    separate = recipe.evaluation.dataset
    with nullcontext() if separate is None else dataset_errors_as("evaluation.dataset"):
        # What the trainer counts are documents, and a conversation may become several.
        found = examples_of(services, who, separate or recipe.dataset, recipe.method.learns)
        places: Sequence[int] = range(found.count)
        if separate is None:
            _, places = split_rows(recipe.seed, found.count, recipe.evaluation.fraction)
        count = len(places)
        if index >= count:
            return HeldOut(index=index, count=count, example=None, reason=f"The last one has the index {count - 1}.")
        example = services.reader.find_example(found.file, places[index])
    return HeldOut(index=index, count=count, example=example, reason=None if example else _NO_QUESTION)
