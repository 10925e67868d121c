from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.background.live import Pace
from api.settings import ApiSettings
from store.session import Sessions
from tests.files import write_dataset, write_model

ADMIN = "an-admin-key-of-some-length"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny")
    write_dataset(tmp_path / "datasets" / "rows.jsonl")
    return tmp_path


@pytest.fixture
def settings(home: Path, database_url: str, broker_url: str) -> ApiSettings:
    return ApiSettings(database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=home)


@pytest.fixture
def client(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """The API on the real database and broker; no worker takes its jobs."""
    with serve(settings) as client:
        yield client


def serve(settings: ApiSettings, pace: Pace = Pace()) -> TestClient:  # noqa: B008
    return TestClient(create_app(settings, pace), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture
def locked(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """An API where every request wants a key."""
    keyed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN)})
    with serve(keyed) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def make(client: TestClient, **new: Any) -> dict[str, Any]:
    answer = client.post("/keys", json=new, headers=bearer(ADMIN))
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]
