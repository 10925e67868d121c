from fastapi import APIRouter

from api import service
from api.deps import Db
from api.schemas import WorkerList

router = APIRouter(tags=["workers"])


@router.get("/workers")
def workers(db: Db) -> WorkerList:
    """The workers, and what runs on each device of their machines or why nothing may."""
    return service.all_workers(db)
