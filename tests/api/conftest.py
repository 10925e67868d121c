from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.settings import ApiSettings
from store.session import Sessions
from tests.support.api import ADMIN_KEY, serve
from tests.support.files import write_dataset, write_model
from tests.support.settings import SECRET_KEY


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent to a public hub: here none answers, unless a test starts one."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny")
    write_dataset(tmp_path / "datasets" / "rows.jsonl")
    return tmp_path


@pytest.fixture
def settings(home: Path, database_url: str, broker_url: str) -> ApiSettings:
    database, broker = SecretStr(database_url), SecretStr(broker_url)
    return ApiSettings(database_url=database, broker_url=broker, home=home, secret_key=SECRET_KEY)


@pytest.fixture
def client(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """The API on the real database and broker; no worker takes its jobs."""
    with serve(settings) as client:
        yield client


@pytest.fixture
def locked(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """An API where every request wants a key."""
    keyed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN_KEY)})
    with serve(keyed) as client:
        yield client
