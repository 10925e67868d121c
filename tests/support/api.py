"""The API in this process, and what its tests send."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from api.background.live import Pace
from api.background.webhook_sender import SenderPace
from api.pushes.pusher import PusherPace
from api.settings import ApiSettings
from api.tracking.follower import FollowerPace
from tests.support.files import ROW
from tests.support.jobs import RECIPE
from tests.support.settings import SECRET_KEY
from tests.support.waiting import until

RATING: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi?"}],
    "answer": {"role": "assistant", "content": "Yes."},
    "model": "tiny",
    "label": True,
}
"""What a user may post of an answer."""


class Response(Protocol):
    """What a TestClient and httpx both return; they are of different libraries."""

    @property
    def status_code(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def json(self) -> Any: ...


ADMIN_KEY = "an-admin-key-of-some-length"


def serve(
    settings: ApiSettings,
    pace: Pace = Pace(),  # noqa: B008
    sender: SenderPace = SenderPace(),  # noqa: B008
    following: FollowerPace = FollowerPace(),  # noqa: B008
    pushing: PusherPace = PusherPace(),  # noqa: B008
) -> TestClient:
    app = create_app(settings, pace, sender, following, pushing)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def make_key(client: TestClient, **new: Any) -> dict[str, Any]:
    answer = client.post("/keys", json=new, headers=bearer(ADMIN_KEY))
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def submit(client: TestClient, headers: Mapping[str, str] | None = None, **recipe: Any) -> Response:
    """POST /jobs of RECIPE with these fields."""
    return client.post("/jobs", json={**RECIPE, **recipe}, headers=headers)


def post_job(client: TestClient, headers: Mapping[str, str] | None = None, **recipe: Any) -> dict[str, Any]:
    """The job, which must have been accepted."""
    answer = submit(client, headers, **recipe)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


ROWS_FILE = json.dumps(ROW).encode() + b"\n"


def upload(client: TestClient, content: bytes = ROWS_FILE, name: str = "rows.jsonl", **fields: str) -> dict[str, Any]:
    answer = client.post("/datasets", files={"file": (name, content)}, data=fields)
    assert answer.status_code == 201, answer.text
    return wait_until_checked(client, answer.json()["id"])


def wait_until_checked(client: TestClient, dataset_id: str) -> dict[str, Any]:
    """The dataset."""

    def checked() -> dict[str, Any] | None:
        dataset: dict[str, Any] = client.get(f"/datasets/{dataset_id}").json()
        return None if dataset["status"] == "uploaded" else dataset

    return until(checked, seconds=60)


def error_of(answer: Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, error
    return error


@functools.cache  # it takes half a second
def description() -> dict[str, Any]:
    """The API's openapi.json, which no setting changes."""
    database = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
    settings = ApiSettings(
        database_url=database, broker_url=SecretStr("redis://127.0.0.1:1"), home=Path("/none"), secret_key=SECRET_KEY
    )
    return create_app(settings).openapi()


def routes() -> list[tuple[str, str]]:
    """Method and path of every route."""
    return [(method.upper(), path) for path, methods in description()["paths"].items() for method in methods]
