import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.settings import ApiSettings
from store.session import Sessions
from tests.support.api import ADMIN_KEY, bearer, serve
from tests.support.jobs import RECIPE


def posted(client: TestClient, **headers: str) -> int:
    answer = client.post(
        "/jobs", json=RECIPE, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    if answer.status_code != 201:
        assert answer.json()["error"]["code"] == "origin_not_allowed"
        assert answer.headers["x-request-id"]
    return answer.status_code


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9000", "null", "http://127.0.0.1", "http://["]
)
def test_page_of_another_origin_cannot_post(client: TestClient, origin: str) -> None:
    assert posted(client, origin=origin) == 403
    assert client.get("/jobs").json()["data"] == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_foreign_page_is_refused_by_its_origin(client: TestClient, site: str) -> None:
    assert posted(client, sec_fetch_site=site) == 403
    assert posted(client, sec_fetch_site=site, origin="http://127.0.0.1:8000") == 403


def test_our_own_page_can_post(client: TestClient) -> None:
    assert posted(client, origin="http://127.0.0.1:8000") == 201
    # As behind a proxy that gives the API another Host than the browser was given.
    assert posted(client, origin="https://tunes.example", sec_fetch_site="same-origin") == 201


def test_cancel_is_refused_like_a_post(client: TestClient) -> None:
    job_id = client.post("/jobs", json=RECIPE).json()["id"]
    assert client.post(f"/jobs/{job_id}/cancel", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "localhost:9000", "[::1]:8000", "127.9.9.9", "api.localhost"]
)
def test_on_loopback_the_names_of_loopback_are_served(client: TestClient, host: str) -> None:
    assert client.get("/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8000", "127.0.0.1.evil.example", "0.0.0.0:8000", "10.0.0.1", "[", "localhost@evil"]
)
def test_foreign_host_name_is_refused_on_loopback(client: TestClient, host: str) -> None:
    answer = client.get("/jobs", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert posted(client, host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 403


def test_elsewhere_every_name_is_served(settings: ApiSettings, sessions: Sessions) -> None:
    with serve(settings.model_copy(update={"host": "0.0.0.0", "admin_key": SecretStr(ADMIN_KEY)})) as client:
        assert posted(client, **bearer(ADMIN_KEY), host="tunes.example", origin="http://tunes.example") == 201
