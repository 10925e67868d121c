"""Runs of Weights & Biases in offline mode, read back from its files, and OpenAI's integrations."""

import asyncio
import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from api.tracking.wandb import run_writer
from contract.status import JobStatus
from store.jobs import actions
from store.session import Sessions
from tests.api.openai.sdk import sdk
from tests.api.tracking import wandb_files
from tests.api.tracking.tracked_jobs import PATIENT, end, evaluate, is_in, loss, start, tracked, train
from tests.support.api import error_of, post_job, serve, submit
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

KEY = "f" * 40
PLACE = {"wandb": {"project": "greetings", "entity": "team", "tags": ["a", "b"]}}


@pytest.fixture
def client(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    with serve(settings.model_copy(update={"wandb_offline": True}), following=PATIENT) as client:
        yield client


def store_key(client: TestClient) -> None:
    client.put("/secrets/wandb", json={"value": KEY}).raise_for_status()


def plotted(folder: Path, step: str, value: str) -> list[tuple[int, float]]:
    return [(row[step], row[value]) for row in wandb_files.history(folder) if value in row]


@pytest.mark.slow
def test_run_is_written_whole_when_the_job_ends(
    client: TestClient, sessions: Sessions, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store_key(client)
    job_id = post_job(client, name="first", tracking=PLACE)["id"]
    folder = home / "wandb" / job_id
    start(sessions)
    evaluate(sessions, job_id, 0)
    train(sessions, job_id, 1, 5)
    # What a process leaves that is killed while it writes.
    (folder / "wandb" / "offline-run-1-x").mkdir(parents=True)
    (folder / "wandb" / "offline-run-1-x" / "run.wandb").write_bytes(b":W&B")
    end(sessions, job_id, status=JobStatus.CANCELLED)
    said = is_in(client, job_id, "complete")
    assert (said["type"], said["step"], said["behind"], said["error"]) == ("wandb", 5, 0, None)
    assert wandb_files.exit_code(folder) == 1
    with sessions.begin() as session:
        actions.retry(session, job_id)
    start(sessions)
    train(sessions, job_id, 4, 9, attempt=2)
    end(sessions, job_id, attempt=2)
    until(lambda: tracked(client, job_id)["step"] == 9, seconds=60)
    is_in(client, job_id, "complete")
    assert plotted(folder, "step", "loss") == [(step, loss(step)) for step in range(1, 10)]
    assert plotted(folder, "eval_step", "eval_loss") == [(0, 2)]
    assert [row["_timestamp"] for row in wandb_files.history(folder) if "loss" in row] == [*range(1001, 1010)]
    run = wandb_files.run(folder)
    assert (run.run_id, run.project, run.entity, run.display_name, [*run.tags]) == (
        job_id, "greetings", "team", "first", ["a", "b"],
    )  # fmt: skip
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    assert (config["model"], config["adapter"]["r"], "tracking" in config) == ("tiny", 16, False)
    written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert KEY.encode() not in written
    assert KEY not in caplog.text


@pytest.mark.exhaustive
def test_unreachable_server_is_reported(settings: ApiSettings, sessions: Sessions) -> None:
    nowhere = settings.model_copy(update={"wandb_url": "http://127.0.0.1:9"})
    with serve(nowhere, following=PATIENT) as client:
        store_key(client)
        job_id = post_job(client, tracking=PLACE)["id"]
        said = is_in(client, job_id, "retrying")
    assert said["error"].startswith("Weights & Biases: ")
    assert KEY not in said["error"]


@pytest.mark.parametrize("cancels", [1, 2])
def test_cancelled_writer_leaves_nothing_behind(cancels: int, tmp_path: Path) -> None:
    """As an API that ends cancels it, and once more if that takes too long. What is left open warns when it goes."""
    mine = psutil.Process()
    before = mine.children()

    async def cancel_while_it_starts() -> None:
        sending = asyncio.create_task(run_writer(tmp_path, b"{}", {"PATH": os.environ["PATH"]}))
        while mine.children() == before:
            await asyncio.sleep(0.01)
        for _ in range(cancels):
            sending.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await sending

    asyncio.run(cancel_while_it_starts())
    gc.collect()
    assert mine.children() == before


def test_key_that_is_not_stored_is_refused(client: TestClient) -> None:
    error = error_of(submit(client, tracking=PLACE), 422, "recipe_invalid")
    assert error["param"] == "tracking.wandb.secret"
    assert "finetuned secrets set wandb" in error["message"]


REQUEST: dict[str, Any] = {"model": "tiny", "training_file": "rows.jsonl"}
WANDB: Any = {"project": "greetings", "name": "first", "tags": ["a"]}


def test_sdk_gets_the_integration_that_it_gave(client: TestClient) -> None:
    store_key(client)
    jobs = sdk(client, "none").fine_tuning.jobs
    job = jobs.create(**REQUEST, integrations=[{"type": "wandb", "wandb": WANDB}])
    assert job.integrations is not None
    (integration,) = jobs.retrieve(job.id).integrations or []
    assert integration == job.integrations[0]
    assert (integration.type, integration.wandb.project, integration.wandb.name) == ("wandb", "greetings", "first")
    assert (integration.wandb.entity, integration.wandb.tags) == (None, ["a"])
    assert jobs.create(**REQUEST).integrations == []


def test_sdk_reads_how_to_store_the_key(client: TestClient) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk(client, "none").fine_tuning.jobs.create(
            **REQUEST,
            integrations=[{"type": "wandb", "wandb": WANDB}],
        )
    assert (refused.value.code, refused.value.param) == ("recipe_invalid", "tracking.wandb.secret")
    assert "PUT /secrets/wandb" in refused.value.message


@pytest.mark.parametrize("given", [[{"type": "mlflow"}], [{"type": "wandb"}], [{"type": "wandb", "wandb": {}}]])
def test_other_integration_is_refused(client: TestClient, given: list[Any]) -> None:
    answer = client.post("/v1/fine_tuning/jobs", json={**REQUEST, "integrations": given})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("integrations")
