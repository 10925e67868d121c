"""Many requests to many adapters, while the server, the worker and the API are killed."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.chat_kills import FAULTS, VICTIMS, answers_under_kills
from tests.support.database import empty_database

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


@pytest.mark.timeout(900)
def test_every_request_is_answered_by_its_own_adapter(
    tmp_path: Path, engine: sa.Engine, database_url: str, broker_url: str
) -> None:
    empty_database(engine)
    counts = answers_under_kills(tmp_path, database_url, broker_url, requests=120, kills=6, seed=1)
    assert {what: counts[what] for what in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert counts["answered"] == 120
    assert [counts[f"kills of the {each}"] for each in VICTIMS] == [2, 2, 2]
    assert counts["sent again"] > 0
