from fastapi import APIRouter

from api.deps import Db
from api.schemas.health import Health
from api.services import health as service

router = APIRouter(tags=["health"])


@router.get("/health")
def health(db: Db) -> Health:
    return service.health(db)
