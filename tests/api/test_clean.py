from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from store.models import Job
from store.session import Sessions
from tests.support.api import ADMIN_KEY, bearer, error_of, make_key, serve
from tests.support.jobs import create_job


@pytest.fixture
def old_state(sessions: Sessions, home: Path) -> Path:
    """A training checkpoint of a job that was cancelled 31 days ago."""
    job_id = create_job(sessions)
    ended = {"status": "cancelled", "attempt": 1, "finished_at": sa.func.now() - timedelta(days=31)}
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(ended))
    path = home / "runs" / job_id / "attempt-1" / "states" / "step-000002" / "state"
    path.parent.mkdir(parents=True)
    path.write_text("12345")
    return path


def test_dry_run_reports_what_a_clean_frees(client: TestClient, old_state: Path) -> None:
    would = client.post("/clean?dry_run=true").json()
    assert old_state.exists()
    did = client.post("/clean").json()
    assert not old_state.exists()
    assert would == did | {"dry_run": True}
    assert did["bytes"] == 5
    kinds = {each["kind"]: (each["count"], each["bytes"]) for each in did["data"]}
    assert kinds.pop("training_checkpoints") == (1, 5)
    assert kinds == dict.fromkeys(("run_folders", "logs", "datasets", "exports"), (0, 0))
    entries = [(each["action"], each["data"]) for each in client.get("/audit").json()["data"]]
    assert entries == [("clean", {"bytes": 5})]


def test_settings_of_the_api_decide(settings: ApiSettings, sessions: Sessions, old_state: Path) -> None:
    with serve(settings.model_copy(update={"keep_training_checkpoints": None})) as client:
        assert client.post("/clean").json()["bytes"] == 0
    assert old_state.exists()


def test_clean_takes_an_admins_key(locked: TestClient, old_state: Path) -> None:
    anna = bearer(make_key(locked, owner="anna")["secret"])
    error_of(locked.post("/clean", headers=anna), 403, "admin_only")
    assert old_state.exists()
    assert locked.post("/clean", headers=bearer(ADMIN_KEY)).status_code == 200
