from fastapi import APIRouter

from api.deps import Bytes, Db, Settings
from api.v1 import models
from api.v1.answers import Deleted, Model, ModelList
from api.who import Who

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
def all_models(db: Db, settings: Settings, who: Who) -> ModelList:
    return models.all_models(db, settings, who)


# A path: the names of a hub's models have a slash in them.
@router.get("/models/{model:path}")
def retrieve(db: Db, settings: Settings, who: Who, model: str) -> Model:
    return models.get(db, settings, who, model)


@router.delete("/models/{model:path}")
def delete(db: Db, storage: Bytes, who: Who, model: str) -> Deleted:
    """Deletes what a job has made: no later job starts from it."""
    return models.delete(db, storage, who, model)
