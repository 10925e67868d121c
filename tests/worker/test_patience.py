import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.session import Sessions, make_sessions
from worker.retry import persist


def one(session: Session) -> object:
    return session.scalar(sa.text("SELECT 1"))


def test_what_is_to_be_told_waits_for_the_database(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = sa.make_url(database_url)
    way = tmp_path / "way"
    engine = sa.create_engine(url.update_query_dict({"host": str(way)}), poolclass=sa.NullPool)
    comes = threading.Timer(0.3, way.symlink_to, [str(url.query["host"])])
    comes.start()
    assert persist(make_sessions(engine), "job 7", one) == 1
    comes.join()
    assert "job 7 waits, the database is away" in caplog.text


def test_what_the_database_refuses_is_not_asked_again(sessions: Sessions) -> None:
    asked = []

    def refused(session: Session) -> None:
        asked.append(1)
        session.execute(sa.text("SELECT nothing"))

    with pytest.raises(sa.exc.ProgrammingError):
        persist(sessions, "job 7", refused)
    assert asked == [1]
