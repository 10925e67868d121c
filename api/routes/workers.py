from fastapi import APIRouter

from api.deps import Db
from api.schemas.workers import WorkerList
from api.services import workers as service
from api.who import Who

router = APIRouter(tags=["workers"])


@router.get("/workers")
def list_workers(db: Db, who: Who) -> WorkerList:
    """The workers, and what runs on each device of their machines or why nothing may."""
    return service.all_workers(db, who)
