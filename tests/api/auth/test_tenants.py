"""No owner sees, guesses or changes what is another's: it is not there for it, as if it had never been."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import assemble, make_services
from api.background.live import Pace
from api.context import Services
from api.jobs import view
from api.settings import ApiSettings
from contract.events import CheckpointEvent
from store import artifacts
from store.session import Sessions
from tests.support.api import ADMIN_KEY, RATING, Response, bearer, description, make_key, routes
from tests.support.artifacts import publish, results
from tests.support.files import ROW, write_tokenizer
from tests.support.jobs import RECIPE, begin, register

OF_ONESELF = {("PUT", "/secrets/{secret_name}")}
"""Names are each owner's own: this one makes one."""
OF_ADMINS = {"/keys", "/keys/{key_id}", "/quotas", "/quotas/{owner}", "/audit"}
OF_EVERYBODY = {"/workers/{worker}/memory"}

PUSH = {"repo": "org/name", "secret": "tracker"}
BODIES: dict[str, dict[str, str]] = {
    "/jobs/{job_id}/evaluations": {"dataset": "rows.jsonl"},
    "/jobs/{job_id}/pushes": PUSH,
}
"""Of the routes that refuse an empty one."""

Headers = dict[str, str]


def cursors() -> set[str]:
    """The paths of the lists that go on after an id."""
    return {
        path
        for path, methods in description()["paths"].items()
        if any(param["name"] == "after" for param in methods.get("get", {}).get("parameters", []))
    }


@pytest.fixture
def anna(locked: TestClient) -> Headers:
    return bearer(make_key(locked, owner="anna")["secret"])


@pytest.fixture
def bob(locked: TestClient) -> Headers:
    return bearer(make_key(locked, owner="bob")["secret"])


@pytest.fixture
def annas(locked: TestClient, anna: Headers, home: Path, sessions: Sessions, engine: sa.Engine) -> dict[str, str]:
    """One of everything, by the name that the routes have for it; `waiting` is a job that needs the dataset, and
    `job_id` one that has succeeded."""

    def post(path: str, status: int, **body: Any) -> dict[str, Any]:
        answer = locked.post(path, headers=anna, **body)
        assert answer.status_code == status, answer.text
        return answer.json()

    write_tokenizer(home / "models" / "tiny")
    file = ("rows.jsonl", json.dumps(ROW).encode())
    dataset_id = post("/datasets", 201, files={"file": file})["id"]
    job_id, waiting = (post("/jobs", 201, json={**RECIPE, "dataset": dataset_id})["id"] for _ in range(2))
    run = home / "runs" / artifacts.run_path(job_id, 1)
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_config.json").write_text("{}")
    with sessions.begin() as session:
        for final in (True, False):
            event = CheckpointEvent(time=1, step=5, path="adapter", bytes=2, final=final)
            artifacts.add_checkpoint(session, job_id, 1, event)
        artifacts.add(session, results(job_id))
    (run / "report").mkdir()
    (run / "report" / "results.csv").write_text("step\n")
    publish(sessions, home)
    with engine.begin() as connection:
        succeeded = "UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = :id"
        connection.execute(sa.text(succeeded), {"id": job_id})
    webhook_id = post("/webhooks", 201, json={"url": "https://example.com/"})["id"]
    # So that nobody tries to send what waits for it.
    locked.patch(f"/webhooks/{webhook_id}", json={"enabled": False}, headers=anna).raise_for_status()
    locked.put("/secrets/tracker", json={"value": "a-token"}, headers=anna).raise_for_status()
    return {
        "secret_name": "tracker",
        "dataset_id": dataset_id,
        "file_id": dataset_id,
        "job_id": job_id,
        "waiting": waiting,
        "name": "adapter.tar",
        "path": "adapter_config.json",
        "sweep_id": post("/sweeps", 201, json={"recipe": RECIPE, "grid": {"seed": [1, 2]}})["id"],
        "export_id": post(f"/jobs/{job_id}/exports", 202, json={})["id"],
        "rating_id": post(f"/jobs/{job_id}/ratings", 201, json=RATING)["id"],
        "evaluation_id": post(f"/jobs/{job_id}/evaluations", 202, json={"dataset": dataset_id})["id"],
        "push_id": post(f"/jobs/{job_id}/pushes", 202, json=PUSH)["id"],
        "webhook_id": webhook_id,
        "delivery_id": post(f"/webhooks/{webhook_id}/test", 202)["id"],
        "model": locked.get(f"/v1/fine_tuning/jobs/{job_id}", headers=anna).json()["fine_tuned_model"],
    }


ID = re.compile(r"[0-9a-f]{24}")


def made_up(text: str) -> str:
    """With ids of the same form, of what nobody has."""
    return ID.sub("0" * 24, text)


def ask(client: TestClient, method: str, path: str, headers: Headers, things: Mapping[str, str]) -> Response:
    """Raises KeyError for a route whose path names something that is not among the things."""
    body = BODIES.get(path, {}) if method in ("POST", "PATCH", "PUT") else None
    # Of the routes that want them.
    headers = {**headers, "accept": "application/json"}
    return client.request(method, path.format_map(things), json=body, params={"model": "tiny"}, headers=headers)


def reported(answer: Response) -> tuple[int, str]:
    """Without the ids by which two answers differ."""
    return answer.status_code, ID.sub("", answer.text)


def test_nothing_of_another_is_there_by_any_route(
    locked: TestClient, anna: Headers, bob: Headers, annas: dict[str, str]
) -> None:
    named = [(method, path) for method, path in routes() if "{" in path and path not in OF_ADMINS | OF_EVERYBODY]
    named = [each for each in named if each not in OF_ONESELF]
    assert len(named) >= 36
    results, checkpoint = f"file-{annas['job_id']}", f"{annas['model']}:ckpt-step-5"
    for things in (annas, annas | {"job_id": annas["waiting"], "file_id": results, "model": checkpoint}):
        for method, path in named:
            answer = ask(locked, method, path, bob, things)
            assert answer.status_code == 404, (method, path, answer.text)
            assert answer.json()["error"]["code"] == "not_found"
            nobodys = {name: made_up(thing) for name, thing in things.items()}
            assert reported(answer) == reported(ask(locked, method, path, bob, nobodys)), (method, path)
            if method == "GET":
                assert ask(locked, "HEAD", path, bob, things).status_code in (404, 405)
    # All of it is still there for its owner: nothing was done, and none of these paths was a wrong one.
    for method, path in named:
        if method == "GET":
            answer = ask(locked, method, path, anna, annas)
            assert answer.status_code == 200, (path, answer.text)
    assert ask(locked, "GET", "/v1/files/{file_id}", anna, {"file_id": results}).status_code == 200
    assert ask(locked, "GET", "/v1/models/{model}", anna, {"model": checkpoint}).status_code == 200
    assert locked.get(f"/jobs/{annas['waiting']}", headers=anna).json()["status"] == "queued"
    assert locked.get(f"/webhooks/{annas['webhook_id']}", headers=anna).json()["enabled"] is False


def test_lists_show_nothing_of_other_owners(locked: TestClient, bob: Headers, annas: dict[str, str]) -> None:
    job = locked.post("/jobs", json=RECIPE, headers=bob).json()["id"]
    webhook = locked.post("/webhooks", json={"url": "https://example.com/"}, headers=bob).json()["id"]
    own = {"job_id": job, "webhook_id": webhook}
    after = {
        "/jobs": annas["job_id"],
        "/sweeps": annas["sweep_id"],
        "/datasets": annas["dataset_id"],
        "/webhooks": annas["webhook_id"],
        "/webhooks/{webhook_id}/deliveries": annas["delivery_id"],
        "/jobs/{job_id}/exports": annas["export_id"],
        "/jobs/{job_id}/ratings": annas["rating_id"],
        "/jobs/{job_id}/evaluations": annas["evaluation_id"],
        "/evaluations": annas["evaluation_id"],
        "/jobs/{job_id}/pushes": annas["push_id"],
        "/v1/files": annas["file_id"],
        "/v1/models": annas["model"],
        "/v1/fine_tuning/jobs": annas["job_id"],
        "/v1/fine_tuning/jobs/{job_id}/events": f"ftevent-{annas['job_id'].removeprefix('job_')}-1-0-e",
        "/v1/fine_tuning/jobs/{job_id}/checkpoints": f"ftckpt_{annas['job_id'].removeprefix('job_')}_5",
    }
    # Of a job's own events, and of the rows of its evaluation, by number.
    assert cursors() == {*after, "/jobs/{job_id}/events"} | {
        "/jobs/{job_id}/evaluations/{evaluation_id}/rows",
        "/keys",
        "/quotas",
        "/audit",
        "/workers/{worker}/memory",
    }
    for path, cursor in [*after.items(), ("/v1/files", f"file-{annas['job_id']}")]:
        url = path.format_map(own)
        answer, nobodys = (locked.get(url, params={"after": each}, headers=bob) for each in (cursor, made_up(cursor)))
        assert answer.status_code in (400, 404), (path, answer.text)
        assert reported(answer) == reported(nobodys)
        assert locked.get(url, headers=bob).status_code == 200
    ids = ID.findall(" ".join(annas.values()))
    for method, path in routes():
        if method == "GET" and "{" not in path:
            text = locked.get(path, headers=bob).text
            assert not any(each in text for each in ids), path


def test_jobs_and_plans_reject_what_others_own(locked: TestClient, bob: Headers, annas: dict[str, str]) -> None:
    job_id, dataset, model = annas["job_id"], annas["dataset_id"], annas["model"]
    recipes: list[dict[str, Any]] = [
        {**RECIPE, "dataset": dataset},
        {**RECIPE, "evaluation": {"dataset": dataset}},
        {**RECIPE, "adapter": {"start_from": job_id}},
        {**RECIPE, "adapter": {"start_from": f"{job_id}/checkpoint-5"}},
    ]
    requested = {"model": "tiny", "training_file": "rows.jsonl"}
    of_openai = [
        {**requested, "training_file": dataset},
        {**requested, "validation_file": dataset},
        {**requested, "model": model},
        {**requested, "model": f"{model}:ckpt-step-5"},
        {**requested, "recipe": {"adapter": {"start_from": job_id}}},
    ]
    bodies = [(path, body) for path in ("/jobs", "/plans") for body in recipes]
    for path, body in [*bodies, *(("/v1/fine_tuning/jobs", body) for body in of_openai)]:
        given = json.dumps(body)
        answer, nobodys = (locked.post(path, content=each, headers=bob) for each in (given, made_up(given)))
        assert answer.status_code in (400, 404, 422), (path, body, answer.text)
        assert re.search(r"no (job|dataset|model) ", answer.json()["error"]["message"])
        assert reported(answer) == reported(nobodys)
    assert locked.get("/jobs", headers=bob).json()["data"] == []


def test_admins_see_everything_and_owners_their_own(locked: TestClient, anna: Headers, bob: Headers) -> None:
    annas, bobs = (locked.post("/jobs", json=RECIPE, headers=who).json()["id"] for who in (anna, bob))

    def listed(headers: Headers, **params: str) -> list[str]:
        page = locked.get("/jobs", headers=headers, params=params).json()
        return [job["id"] for job in page["data"]]

    assert (listed(anna), listed(bob)) == ([annas], [bobs])
    assert listed(anna, owner="bob") == [annas]
    assert listed(bearer(ADMIN_KEY)) == [bobs, annas]
    assert listed(bearer(ADMIN_KEY), owner="anna") == [annas]


def test_workers_and_queue_name_no_other_job(
    locked: TestClient, anna: Headers, bob: Headers, sessions: Sessions
) -> None:
    def post(who: Headers, **recipe: Any) -> str:
        answer = locked.post("/jobs", json={**RECIPE, **recipe}, headers=who)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    with sessions.begin() as session:
        register(session, "gpu-a", slots=2)
    running = post(anna, scheduling={"preemptible": True})
    with sessions.begin() as session:
        begin(session)
    large = post(anna, resources={"gpus": 2}, scheduling={"priority": 1})

    def devices(who: Headers) -> set[tuple[tuple[str, ...], int]]:
        (worker,) = locked.get("/workers", headers=who).json()["data"]
        return {(tuple(device["jobs"]), device["jobs_of_other_owners"]) for device in worker["devices"]}

    assert devices(anna) == devices(bearer(ADMIN_KEY)) == {((running,), 0), ((), 0)}
    assert devices(bob) == {((), 1), ((), 0)}
    for recipe, named in (({}, large), ({"resources": {"gpus": 2}, "scheduling": {"priority": 2}}, running)):
        job_id = post(bob, **recipe)
        for_admin, for_bob = (
            locked.get(f"/jobs/{job_id}", headers=who).json()["queue"]["reason"] for who in (bearer(ADMIN_KEY), bob)
        )
        assert named in for_admin
        assert for_bob == for_admin.replace(named, "another's job")
        assert view.waits_of(sessions, [job_id])[job_id].reason == for_bob
    assert not re.search(f"{large}|{running}", locked.get("/jobs", headers=bob).text)


def test_every_route_but_health_wants_a_key(settings: ApiSettings, sessions: Sessions) -> None:
    services = make_services(settings.model_copy(update={"require_keys": True}), Pace())
    with TestClient(assemble(services), base_url="http://127.0.0.1:8000") as client:
        check_that_keys_are_wanted(client, services)


def check_that_keys_are_wanted(client: TestClient, services: Services) -> None:
    open_to_all = {"/health", "/health/live", "/health/ready", "/metrics", "/recipe-schema", "/session"}
    requested = [(method, path) for method, path in routes() if path not in open_to_all]
    assert len(requested) >= 15
    for method, path in requested:
        services.rates.forget()  # of wrong keys, which are fewer in a minute than there are routes
        answer = client.request(method, re.sub(r"\{[^}]+\}", "x", path))
        assert answer.status_code in (401, 404), (method, path, answer.status_code)
        assert answer.status_code == 401 or "{" in path
