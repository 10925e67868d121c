"""A job's artifacts on a hub that runs here."""

import os
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.pushes.pusher import PusherPace
from api.settings import ApiSettings
from contract.events import CheckpointEvent
from storage.backends import make_storage
from store import artifacts
from store.jobs import jobs
from store.pushes import PushTiming
from store.session import Sessions
from tests.support import s3
from tests.support.api import bearer, error_of, make_key, serve
from tests.support.artifacts import publish
from tests.support.hub import ModelHub, model_hub
from tests.support.jobs import make_recipe
from tests.support.processes import all_pids, read_proc
from tests.support.servers import free_port
from tests.support.service import running
from tests.support.waiting import until

WAITS = {"first_wait": timedelta(seconds=0.05), "longest_wait": timedelta(seconds=0.2)}
QUICK = PusherPace(poll_seconds=0.02, send_seconds=30, timing=PushTiming(lease=timedelta(seconds=2), **WAITS))
CARD = "---\nlibrary_name: peft\n---\n\n# ours\n\n## Use\n\nWith the folder `adapter`.\n"
FILES = {
    "README.md": CARD.encode(),
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": random.Random(0).randbytes(3 << 20),
    "nested/tokens é.txt": b"",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with model_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def client(settings: ApiSettings, sessions: Sessions, hub: ModelHub) -> Iterator[TestClient]:
    with serve(settings, pushing=QUICK) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        yield client


def save(home: Path, sessions: Sessions, owner: str = "default", **more: bytes) -> str:
    """The id of a job with an adapter of FILES."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(), owner).id
        artifacts.add_checkpoint(session, job_id, 1, CheckpointEvent(time=1, step=5, path="a", bytes=2, final=True))
    for name, content in (FILES | more).items():
        path = home / "runs" / artifacts.run_path(job_id, 1) / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return job_id


@pytest.fixture
def job_id(home: Path, sessions: Sessions) -> str:
    job_id = save(home, sessions)
    publish(sessions, home)
    return job_id


def push(client: Any, job_id: str, **wanted: Any) -> dict[str, Any]:
    answer = client.post(f"/jobs/{job_id}/pushes", json={"repo": "org/name", "secret": "hub", **wanted})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def ended(client: Any, made: dict[str, Any], *statuses: str) -> dict[str, Any]:
    """The push, once it has one of the statuses, or any end."""

    def read() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/jobs/{made['job_id']}/pushes/{made['id']}").json()
        return found if found["status"] in (statuses or ("succeeded", "failed")) else None

    return until(read, seconds=60)


def writers() -> list[int]:
    """The processes that upload for this one."""
    mark = f"api.pushes.hub_writer\0{os.getpid()}\0".encode()
    return [pid for pid in all_pids() if mark in read_proc(pid, "cmdline")]


def with_download(repo: str) -> bytes:
    get = f"Download these files to a folder `adapter`:\n\n```sh\nhf download {repo} --local-dir adapter\n```\n\n"
    return CARD.replace("## Use\n\n", f"## Use\n\n{get}").encode()


def test_repo_gets_every_file_and_a_card_that_names_it(
    client: TestClient, job_id: str, hub: ModelHub, home: Path
) -> None:
    made = push(client, job_id)
    assert (made["status"], made["artifact"], made["private"], made["url"]) == ("queued", "adapter.tar", True, None)
    done = ended(client, made)
    assert done["status"] == "succeeded", done["error"]
    assert done["url"] == f"{hub.url}/org/name"
    assert done["commit_url"].startswith(f"{hub.url}/org/name/commit/")
    repo = hub.repos["org/name"]
    assert repo.private
    assert repo.files() == FILES | {"README.md": with_download("org/name")}
    assert client.get(f"/jobs/{job_id}/pushes").json() == {"data": [done], "has_more": False}
    assert not list((home / "incoming").glob("*"))


def test_second_push_makes_no_new_commit(client: TestClient, job_id: str, hub: ModelHub) -> None:
    first = ended(client, push(client, job_id))
    second = ended(client, push(client, job_id))
    assert second["id"] != first["id"]
    assert (second["status"], second["commit_url"]) == ("succeeded", first["commit_url"])
    assert hub.count("PUT /lfs/.*") == 1


def test_branch_is_made_and_repo_may_be_public(client: TestClient, job_id: str, hub: ModelHub) -> None:
    for _ in range(2):
        done = ended(client, push(client, job_id, revision="v1/try", private=False))
        assert done["status"] == "succeeded", done["error"]
    repo = hub.repos["org/name"]
    assert not repo.private
    assert repo.files("v1/try").keys() == FILES.keys()
    assert repo.files() == {}


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_wrong", "org/name", "401 Unauthorized: Invalid username or password."),
        ("hf_reader", "org/name", 'under the namespace "org". [secret]'),
        ("hf_writer", "other/name", 'under the namespace "other". [secret]'),
    ],
)
def test_hub_that_refuses_is_quoted_without_the_token(  # parameters: fixtures and a case
    client: TestClient, job_id: str, token: str, repo: str, words: str, engine: sa.Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    client.put("/secrets/hub", json={"value": token}).raise_for_status()
    made = push(client, job_id, repo=repo)
    done = ended(client, made)
    assert done["status"] == "failed"
    assert words in done["error"]
    with engine.connect() as connection:
        row = str(connection.execute(sa.text("SELECT * FROM pushes")).all())
    assert token not in row + caplog.text + client.get("/audit").text + str(done)


def test_token_at_the_end_of_long_words_is_not_cut(client: TestClient, job_id: str, hub: ModelHub) -> None:
    said = "x" * 565  # what is quoted ends within the second of these tokens
    hub.faults = [(403, {"error": f"{said} {' '.join(['hf_writer'] * 9)}"})]
    error = ended(client, push(client, job_id))["error"]
    assert said in error
    assert error.endswith("...")
    assert "hf_" not in error


@pytest.mark.parametrize("status", [404, 409])
def test_other_refusals_end_the_push(client: TestClient, job_id: str, hub: ModelHub, status: int) -> None:
    ended(client, push(client, job_id))  # the repo is there
    hub.faults = [(409, {"url": f"{hub.url}/org/name"}), (200, {}), (status, {"error": "No, because."})]
    done = ended(client, push(client, job_id))
    assert done["status"] == "failed"
    assert "No, because." in done["error"]


def test_hub_that_fails_for_a_while_gets_all_files(client: TestClient, job_id: str, hub: ModelHub) -> None:
    hub.faults = [(503, {"error": "tired"}), (429, {"error": "slow"}), (500, {})]
    done = ended(client, push(client, job_id))
    assert (done["status"], done["failures"]) == ("succeeded", 3), done
    assert hub.repos["org/name"].files().keys() == FILES.keys()


def test_hub_that_comes_back_gets_what_waits(
    settings: ApiSettings, sessions: Sessions, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with serve(settings, pushing=QUICK) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        made = push(client, job_id)
        until(lambda: "cannot be reached" in (ended(client, made, "queued", "running")["error"] or ""), seconds=60)
        with model_hub(port) as hub:
            assert ended(client, made)["status"] == "succeeded"
            assert hub.repos["org/name"].files().keys() == FILES.keys()


def test_push_is_given_up_after_its_time(settings: ApiSettings, sessions: Sessions, job_id: str, hub: ModelHub) -> None:
    hub.faults = [(503, {"error": "tired"})] * 100
    pace = PusherPace(poll_seconds=0.02, timing=PushTiming(give_up=timedelta(0), **WAITS))
    with serve(settings, pushing=pace) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        done = ended(client, push(client, job_id))
    assert done["status"] == "failed"
    assert "503 Service Unavailable: tired" in done["error"]


def test_unexpected_error_is_counted_and_named(
    settings: ApiSettings, sessions: Sessions, home: Path, hub: ModelHub
) -> None:
    job_id = save(home, sessions, "default", **{"README.md": b"\xff is no UTF-8"})
    publish(sessions, home)
    pace = PusherPace(poll_seconds=0.02, timing=PushTiming(give_up=timedelta(0), **WAITS))
    with serve(settings, pushing=pace) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        done = ended(client, push(client, job_id))
    assert (done["status"], done["failures"]) == ("failed", 1)
    assert done["error"] == "an unexpected UnicodeDecodeError, which the API's log explains"


def test_unfinished_push_is_returned_again(client: TestClient, job_id: str, hub: ModelHub) -> None:
    hub.going_on.clear()
    first = push(client, job_id)
    assert hub.uploading.wait(60)
    assert push(client, job_id)["id"] == first["id"]
    assert push(client, job_id, repo="org/other")["id"] != first["id"]
    hub.going_on.set()
    assert ended(client, first)["status"] == "succeeded"


def test_two_processes_upload_nothing_twice(
    settings: ApiSettings, client: TestClient, job_id: str, hub: ModelHub
) -> None:
    with serve(settings, pushing=QUICK):
        made = [push(client, job_id, repo=f"org/{name}") for name in range(5)]
        for each in made:
            assert ended(client, each)["status"] == "succeeded"
    assert hub.count("POST /api/models/.*/commit/main") == 5


def test_process_that_stops_gives_its_push_back(
    settings: ApiSettings, sessions: Sessions, job_id: str, hub: ModelHub
) -> None:
    hub.going_on.clear()
    slow = PusherPace(poll_seconds=0.02, timing=PushTiming(lease=timedelta(hours=1), **WAITS))
    with serve(settings, pushing=slow) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        made = push(client, job_id)
        assert hub.uploading.wait(60)
    hub.going_on.set()
    with serve(settings, pushing=slow) as client:
        assert ended(client, made)["status"] == "succeeded"


def test_deleted_job_ends_its_upload(client: TestClient, job_id: str, hub: ModelHub) -> None:
    hub.going_on.clear()
    push(client, job_id)
    assert hub.uploading.wait(60)
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    client.delete(f"/jobs/{job_id}").raise_for_status()
    until(lambda: not writers())
    hub.going_on.set()
    assert hub.repos["org/name"].files() == {}


def test_killed_api_continues_its_push(
    home: Path, sessions: Sessions, job_id: str, hub: ModelHub, database_url: str, broker_url: str
) -> None:
    hub.going_on.clear()
    with running(home, database_url, broker_url, (), HF_ENDPOINT=hub.url, HF_TOKEN="hf_operators") as service:
        service.client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        made = push(service.client, job_id)
        assert hub.uploading.wait(60)
        service.api.kill()
        service.api.wait()
        assert [path.name for path in (home / "incoming").iterdir()] == [f"{made['id']}-1.partial"]
        until(lambda: not [pid for pid in service.everything() if pid != service.api.pid], seconds=30)
        hub.going_on.set()
        service.start_api()
        assert ended(service.client, made, "running")["url"] is None  # it has the dead one's lease
        with sessions.begin() as session:
            session.execute(sa.text("UPDATE pushes SET due_at = now()"))  # as half a minute does
        done = ended(service.client, made)
        assert done["status"] == "succeeded", done
    assert not list((home / "incoming").iterdir())
    assert hub.repos["org/name"].files().keys() == FILES.keys()
    assert {token for _, token in hub.requests} == {"Bearer hf_writer", None}
    assert "hf_writer" not in (home / "api.log").read_text()


@pytest.fixture
def bucket(settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiSettings]:
    port = free_port()
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    with s3.running_s3(port):
        yield ApiSettings(**settings.model_dump() | {"storage": f"s3://{s3.BUCKET}/ours"})


def test_files_in_a_bucket_are_pushed(bucket: ApiSettings, sessions: Sessions, home: Path, hub: ModelHub) -> None:
    job_id = save(home, sessions)
    publish(sessions, home, make_storage(bucket))
    with serve(bucket, pushing=QUICK) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        done = ended(client, push(client, job_id))
    assert done["status"] == "succeeded", done["error"]
    assert hub.repos["org/name"].files() == FILES | {"README.md": with_download("org/name")}
    assert not list((home / "incoming").glob("*"))


@pytest.mark.parametrize(
    ("wanted", "status", "param"),
    [
        ({"repo": "name"}, 422, "repo"),
        ({"repo": "org/a--b"}, 422, "repo"),
        ({"repo": "org/name.git"}, 422, "repo"),
        ({"secret": "none"}, 422, "secret"),
        ({"artifact": "trainer.log"}, 422, "artifact"),
        ({"artifact": "portable.tar"}, 404, None),
        ({"revision": "-x"}, 422, "revision"),
        ({"private": "yes"}, 422, "private"),
        ({"token": "hf_writer"}, 422, "token"),
    ],
)
def test_impossible_push_is_refused(
    client: TestClient, job_id: str, wanted: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(f"/jobs/{job_id}/pushes", json={"repo": "org/name", "secret": "hub", **wanted})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert client.get(f"/jobs/{job_id}/pushes").json()["data"] == []


@pytest.mark.parametrize("unknown", ["push_" + "0" * 24, "no", "%00"])
def test_unknown_push_is_404(client: TestClient, job_id: str, unknown: str) -> None:
    assert client.get(f"/jobs/{job_id}/pushes/{unknown}").status_code == 404
    assert client.get(f"/jobs/{job_id}/pushes?after={unknown}").status_code == 404


def test_owners_share_neither_jobs_nor_secrets(locked: TestClient, home: Path, sessions: Sessions) -> None:
    annas = save(home, sessions, "anna")
    publish(sessions, home)
    anna, bob = (bearer(make_key(locked, owner=owner)["secret"]) for owner in ("anna", "bob"))
    locked.put("/secrets/hub", json={"value": "hf_writer"}, headers=bob).raise_for_status()
    wanted = {"repo": "org/name", "secret": "hub"}
    error_of(locked.post(f"/jobs/{annas}/pushes", json=wanted, headers=bob), 404, "not_found")
    refused = error_of(locked.post(f"/jobs/{annas}/pushes", json=wanted, headers=anna), 422, "invalid_parameter")
    assert refused["param"] == "secret"


def test_deleted_secret_and_artifact_end_the_push(
    settings: ApiSettings, sessions: Sessions, job_id: str, home: Path, hub: ModelHub
) -> None:
    with serve(settings, pushing=PusherPace(poll_seconds=3600)) as client:
        client.put("/secrets/hub", json={"value": "hf_writer"}).raise_for_status()
        first = push(client, job_id)
        client.put("/secrets/other", json={"value": "hf_writer"}).raise_for_status()
        second = push(client, job_id, secret="other")
        client.delete("/secrets/hub").raise_for_status()
    (home / "runs" / artifacts.run_path(job_id, 1) / "a" / "adapter_config.json").unlink()
    with serve(settings, pushing=QUICK) as client:
        assert "no secret hub: store it" in ended(client, first)["error"]
        assert ended(client, second)["error"] == "the files of adapter.tar are no longer on the server"
