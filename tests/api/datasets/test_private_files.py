"""Where the home lies below an allowed folder, no path leads an owner to what is another's, nor out by a link."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.orm import sessionmaker

from api.datasets.service import content
from api.settings import ApiSettings
from contract.failure import InputError
from store.access.principal import Principal
from store.session import Sessions
from tests.support.api import ADMIN_KEY, ROWS_FILE, Response, bearer, error_of, make_key, serve, wait_until_checked
from tests.support.files import write_model, write_tokenizer
from worker.settings import WorkerSettings

Headers = dict[str, str]
NOT_THERE = {"dataset_not_found", "model_not_found"}


@pytest.fixture
def shared(settings: ApiSettings, sessions: Sessions, home: Path) -> Iterator[TestClient]:
    """The API that `finetuned up` starts in a folder with its home in it, for owners with keys."""
    keyed = {"require_keys": True, "admin_key": SecretStr(ADMIN_KEY), "allowed_paths": [home.parent]}
    with serve(settings.model_copy(update=keyed)) as client:
        yield client


@pytest.fixture
def bob(shared: TestClient) -> Headers:
    return bearer(make_key(shared, owner="bob")["secret"])


@pytest.fixture
def private(shared: TestClient, home: Path) -> list[Path]:
    """Files of another owner and of the service, of which some would do as data and one folder as a model."""
    anna = bearer(make_key(shared, owner="anna")["secret"])
    shared.post("/datasets", files={"file": ("rows.jsonl", ROWS_FILE)}, headers=anna).raise_for_status()
    attempt = home / "runs" / "job_1" / "attempt-1"
    write_model(attempt / "adapter")
    write_model(home / "hub" / "models--a--b" / "snapshots" / "main")
    for path in (
        *(
            attempt / name
            for name in ("recipe.json", "events.jsonl", "trainer.log", "adapter/adapter_model.safetensors")
        ),
        *(home / name for name in ("logs/worker.log", "postgres/data/rows.jsonl", "valkey/rows.jsonl", "stack.lock")),
        *(home / name for name in ("incoming/1.partial", "cache/datasets/rows", "hub/rows.jsonl", "rows.jsonl")),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROWS_FILE)
    own = (home / "models", home / "datasets")
    return [path for path in home.rglob("*") if path.is_file() and not any(map(path.is_relative_to, own))]


def ways_to(path: Path, home: Path) -> list[str]:
    return [str(path), f"./{path.relative_to(home.parent)}", f"../{path.relative_to(home)}"]


def test_no_path_reaches_private_files_of_the_home(
    shared: TestClient, bob: Headers, private: list[Path], home: Path
) -> None:
    assert {path.relative_to(home).parts[0] for path in private} >= {"blobs", "runs", "logs", "postgres", "cache"}
    model, good = "tiny", "rows.jsonl"
    for path in private:
        for way in ways_to(path, home):
            for route, body in (
                ("/datasets", {"path": way}),
                ("/jobs", {"model": model, "dataset": way}),
                ("/jobs", {"model": model, "dataset": good, "evaluation": {"dataset": way}}),
                ("/plans", {"model": model, "dataset": way}),
                ("/jobs", {"model": os.path.dirname(way), "dataset": good}),
                ("/plans", {"model": os.path.dirname(way), "dataset": good}),
            ):
                answer = shared.post(route, json=body, headers=bob)
                assert answer.status_code == 422, (route, body, answer.text)
                assert answer.json()["error"]["code"] in NOT_THERE, (route, body, answer.text)
    assert shared.get("/datasets", headers=bob).json()["data"] == []


def test_no_other_route_accepts_a_home_path(shared: TestClient, bob: Headers, private: list[Path], home: Path) -> None:
    made = shared.post("/datasets", files={"file": ("rows.jsonl", ROWS_FILE)}, headers=bob).json()
    folder = home / "runs" / "job_1" / "attempt-1" / "adapter"
    for way in ways_to(folder, home):
        for what in ("preview", "report"):
            answer = shared.get(f"/datasets/{made['id']}/{what}", params={"model": way}, headers=bob)
            error_of(answer, 422, "model_not_found")
        recipe = {"model": "tiny", "dataset": "rows.jsonl", "adapter": {"start_from": way}}
        assert shared.post("/jobs", json=recipe, headers=bob).status_code == 422
        for name in ("model", "training_file", "validation_file"):
            body = {"model": "tiny", "training_file": made["id"], name: way}
            answer = shared.post("/v1/fine_tuning/jobs", json=body, headers=bob)
            assert 400 <= answer.status_code < 500, (name, answer.text)


def test_operator_models_and_data_stay_usable(shared: TestClient, bob: Headers, home: Path) -> None:
    for dataset in ("rows.jsonl", f"{home.name}/datasets/rows.jsonl", str(home / "datasets" / "rows.jsonl")):
        for model in ("tiny", f"{home.name}/models/tiny", str(home / "models" / "tiny")):
            answer = shared.post("/jobs", json={"model": model, "dataset": dataset}, headers=bob)
            assert answer.status_code == 201, answer.text


def content_of(client: TestClient, path: str, headers: Headers) -> tuple[Response, str]:
    made = client.post("/datasets", json={"path": path}, headers=headers)
    assert made.status_code == 201, made.text
    dataset_id = made.json()["id"]
    while client.get(f"/datasets/{dataset_id}", headers=headers).json()["status"] == "uploaded":
        pass
    return client.get(f"/datasets/{dataset_id}/content", headers=headers), dataset_id


@pytest.mark.parametrize(
    "content", [b"root:x:0:0\ndaemon:x:1:1\n", b"KEY\n", b"\x00\x01\x02", b'{"password": "p"}', b""]
)
def test_file_that_is_no_dataset_is_not_served(shared: TestClient, bob: Headers, home: Path, content: bytes) -> None:
    (home.parent / "thing").write_bytes(content)
    answer, dataset_id = content_of(shared, "thing", bob)
    error_of(answer, 422, "dataset_invalid")
    assert shared.get(f"/v1/files/{dataset_id}/content", headers=bob).status_code >= 400
    assert shared.head(f"/datasets/{dataset_id}/content", headers=bob).status_code == 422


def test_unchecked_file_is_not_served(client: TestClient, engine: sa.Engine) -> None:
    _, dataset_id = content_of(client, "rows.jsonl", {})
    with engine.connect() as connection:
        # Not committed: else the API would check it again.
        connection.execute(sa.text("UPDATE datasets SET status = 'uploaded'"))
        services = replace(client.app_state["services"], sessions=sessionmaker(connection, expire_on_commit=False))
        with pytest.raises(InputError, match="still being checked"):
            content(services, Principal("anna", True, None, "request"), dataset_id)


def test_file_written_after_its_check_is_not_served(client: TestClient, home: Path) -> None:
    path = home / "datasets" / "rows.jsonl"
    answer, dataset_id = content_of(client, "rows.jsonl", {})
    assert answer.content == path.read_bytes()
    path.write_text("SECRET=1\n")
    error_of(client.get(f"/datasets/{dataset_id}/content"), 422, "dataset_changed")
    secret = home / "secret.jsonl"
    secret.write_text("SECRET=1\n")
    path.unlink()
    path.symlink_to(secret)
    error_of(client.get(f"/datasets/{dataset_id}/content"), 422, "dataset_not_found")


def test_no_model_file_is_served_by_any_route(shared: TestClient, bob: Headers, home: Path) -> None:
    secret = home.parent.parent / f"secret-{home.parent.name}"
    secret.write_text("a secret")
    made = shared.post("/datasets", files={"file": ("rows.jsonl", ROWS_FILE)}, headers=bob).json()
    for target in (secret, home / "blobs", Path("/etc/passwd"), Path("/proc/self/environ")):
        model = home.parent / "theirs"
        if not model.exists():
            write_model(model)
            write_tokenizer(model)
        link = model / "chat_template.jinja"
        link.unlink()
        link.symlink_to(target)
        for what in ("preview", "report"):
            answer = shared.get(f"/datasets/{made['id']}/{what}", params={"model": "theirs"}, headers=bob)
            error_of(answer, 422, "model_unsupported")
        for route in ("/jobs", "/plans"):
            answer = shared.post(route, json={"model": "theirs", "dataset": "rows.jsonl"}, headers=bob)
            error_of(answer, 422, "model_unsupported")
            assert "a secret" not in answer.text


def test_pipe_in_a_model_keeps_nobody_waiting(client: TestClient, home: Path) -> None:
    template = home / "models" / "tiny" / "chat_template.jinja"
    template.unlink()
    os.mkfifo(template)
    made = client.post("/datasets", files={"file": ("rows.jsonl", ROWS_FILE)}).json()
    wait_until_checked(client, made["id"])
    answer = client.get(f"/datasets/{made['id']}/preview", params={"model": "tiny"})
    error_of(answer, 422, "model_unsupported")


def test_linked_model_is_listed_and_taken(
    client: TestClient, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("disk") / "real-name"
    write_model(elsewhere)
    (home / "models" / "linked").symlink_to(elsewhere)
    assert {each["id"] for each in client.get("/v1/models").json()["data"]} == {"tiny", "linked"}
    job = client.post("/jobs", json={"model": "linked", "dataset": "rows.jsonl"})
    assert job.status_code == 201, job.text
    assert job.json()["recipe"]["model"] == "linked"
    error_of(client.post("/jobs", json={"model": str(elsewhere), "dataset": "rows.jsonl"}), 422, "model_not_found")


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
@pytest.mark.parametrize("folder", ["/", "/etc", "{home}", "{home}/runs", "{home}/mine"])
def test_settings_that_allow_too_much_are_refused(
    kind: type[ApiSettings | WorkerSettings], folder: str, settings: ApiSettings, home: Path
) -> None:
    given = settings.model_dump(include={"database_url", "broker_url", "home", "secret_key"} & kind.model_fields.keys())
    with pytest.raises(ValueError, match="allowed_paths") as refusal:
        kind.model_validate({**given, "allowed_paths": f"{home.parent}:{folder.format(home=home)}"})
    assert f"got {folder.format(home=home)}; it " in json.dumps(str(refusal.value))
    allowed = kind.model_validate({**given, "allowed_paths": f"{home.parent}:{home}/datasets"}).allowed_paths
    assert allowed[0] == home.parent
