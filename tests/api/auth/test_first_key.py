import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from tests.support.api import ADMIN_KEY, bearer
from tests.support.settings import SECRET_KEY


@pytest.fixture
def first_key(locked: TestClient, database_url: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    values = {"DATABASE_URL": database_url, "BROKER_URL": "redis://", "HOME": str(tmp_path)}
    values["SECRET_KEY"] = SECRET_KEY.get_secret_value()
    for name, value in values.items():
        monkeypatch.setenv(f"FINETUNED_{name}", value)
    return [sys.executable, "-m", "api.first_key"]


def test_first_key_is_printed_once(locked: TestClient, first_key: list[str]) -> None:
    secret = subprocess.check_output(first_key, text=True).strip()
    assert locked.get("/keys", headers=bearer(secret)).status_code == 200
    again = subprocess.run(first_key, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "")
    assert "there is an admin key" in again.stderr
    (made,) = locked.get("/keys", headers=bearer(ADMIN_KEY)).json()["data"]
    assert (made["admin"], made["name"]) == (True, "first")
    (entry,) = locked.get("/audit", headers=bearer(ADMIN_KEY)).json()["data"]
    assert (entry["action"], entry["target"]) == ("key.create", made["id"])
