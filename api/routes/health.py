from fastapi import APIRouter
from sqlalchemy import text

from api.deps import Db
from api.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/health")
def health(db: Db) -> Health:
    """Answers when the service can take jobs: its database does."""
    with db.begin() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")
