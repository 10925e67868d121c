"""Whether the service can take jobs."""

from sqlalchemy import text

from api.schemas.health import Health
from store.session import Sessions


def health(sessions: Sessions) -> Health:
    """Answers when the service can take jobs: its database does."""
    with sessions.begin() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")
