from typing import Annotated

from fastapi import APIRouter, Query

from api.auth.who import Who
from api.context import Context
from api.openai import models
from api.openai.schemas import Deleted, Model, ModelList

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
def list_openai_models(
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: Annotated[str | None, Query(max_length=5000)] = None,
) -> ModelList:
    """The base models, and then `limit` fine-tuned ones, newest first. OpenAI's route has no pages; here `after`, the
    name of the last model, gives the next one."""
    return models.newest(services, who, limit, after)


# A path: the names of a hub's models have a slash in them.
@router.get("/models/{model:path}")
def get_openai_model(services: Context, who: Who, model: str) -> Model:
    return models.get(services, who, model)


@router.delete("/models/{model:path}")
def delete_openai_model(services: Context, who: Who, model: str) -> Deleted:
    """Deletes what a job has made: no later job starts from it."""
    return models.delete(services, who, model)
