from fastapi import APIRouter

from api import service
from api.deps import Db
from api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/health")
def health(db: Db) -> Health:
    return service.health(db)
