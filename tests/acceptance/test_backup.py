"""The drill: a service is saved, lost, restored and used again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from store.session import Sessions
from tests.support import s3
from tests.support.api import ADMIN_KEY, bearer
from tests.support.database import dump, new_database
from tests.support.files import ROW, add_model_and_dataset, contents
from tests.support.servers import free_port
from tests.support.service import FAKE_TRAINER, Service, running
from tests.support.waiting import until

pytestmark = pytest.mark.slow

SETTINGS = {
    "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
    "FINETUNED_LEASE": "PT1S",
    "FINETUNED_RETRY_WAIT": "PT0.2S",
    "FINETUNED_SLOTS": "2",
    "FINETUNED_REQUIRE_KEYS": "true",
    "FINETUNED_ADMIN_KEY": ADMIN_KEY,
}
LONG = "steps=10000 every=4 sleep=0.1"


@pytest.fixture
def lost(engine: sa.Engine) -> Iterator[sa.Engine]:
    """A database without any table."""
    with new_database(engine, "drill") as other:
        yield other


def finetuned(action: str, file: Path, home: Path, database: sa.Engine, **settings: str) -> str:
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "FINETUNED_HOME": str(home),
        "FINETUNED_WORKER_PASSWORD": "any",  # the tests' workers have the rights of its role alone
        **settings,
    }
    command = [sys.executable, "-W", "error", "-m", "finetuned", action, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def upload(live: Service) -> str:
    file = ("rows.jsonl", (json.dumps(ROW) + "\n") * 5)
    answer = live.client.post("/datasets", files={"file": file})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def use(live: Service) -> dict[str, str]:
    """Ids of a job of each kind; also makes a key, a webhook and an export."""
    live.client.post("/keys", json={"owner": "anna"}).raise_for_status()
    hook = {"url": "https://example.com/hook", "events": ["job.succeeded"]}
    live.client.post("/webhooks", json=hook)
    dataset = upload(live)
    succeeded, paused = live.submit(dataset=dataset)["id"], live.submit(name=LONG)["id"]
    assert live.wait(succeeded)["status"] == "succeeded"
    live.wait_for_step(paused, 5)
    live.ask("pause", paused)
    live.wait(paused, "paused")
    interrupted = live.submit(name=LONG)["id"]
    live.wait_for_step(interrupted, 5)
    return {"dataset": dataset, "succeeded": succeeded, "paused": paused, "running": interrupted}


def check(live: Service, ids: dict[str, str], artifacts: list[dict[str, Any]]) -> None:
    """All artifacts are there, unfinished jobs continue, and the dataset trains."""
    base = f"/jobs/{ids['succeeded']}/artifacts"
    assert live.client.get(base).json()["data"] == artifacts
    for each in artifacts:
        whole = live.client.get(f"{base}/{each['name']}").content
        assert hashlib.sha256(whole).hexdigest() == each["sha256"]
    live.ask("resume", ids["paused"])
    for job_id in (ids["paused"], ids["running"]):
        until(partial(first_step, live, job_id), seconds=60)
        assert first_step(live, job_id) > 1  # from its last training checkpoint
        live.ask("cancel", job_id)
        live.wait(job_id, seconds=60)
        steps = live.metrics(job_id)["step"]
        assert steps == list(range(1, len(steps) + 1))
    again = live.submit(dataset=ids["dataset"])["id"]
    assert live.wait(again, seconds=60)["status"] == "succeeded"


def first_step(live: Service, job_id: str) -> int:
    """Of the second attempt; 0 before it."""
    events = live.run_dir(job_id, 2).events
    lines = events.read_text().splitlines() if events.exists() else []
    steps = [event["step"] for event in map(json.loads, lines) if event["type"] == "metric"]
    return steps[0] if steps else 0


@pytest.mark.exhaustive  # .ci/run often runs one like it: benchmarks.backup --short
@pytest.mark.parametrize("storage", ["home", "bucket"])
def test_lost_service_is_restored_whole(
    tmp_path: Path,
    engine: sa.Engine,
    sessions: Sessions,
    lost: sa.Engine,
    database_url: str,
    broker_url: str,
    storage: str,
) -> None:
    home, new_home, file = tmp_path / "home", tmp_path / "new", tmp_path / "service.tar"
    add_model_and_dataset(home)
    settings, port = SETTINGS, free_port()
    bucket = {"FINETUNED_STORAGE": f"s3://{s3.BUCKET}/ours", **s3.environment(port)} if storage == "bucket" else {}
    with s3.running_s3(port) if bucket else nullcontext():
        with running(home, database_url, broker_url, **settings, **bucket) as live:
            live.client.headers.update(bearer(ADMIN_KEY))
            ids = use(live)
            artifacts = live.client.get(f"/jobs/{ids['succeeded']}/artifacts").json()["data"]
            live.kill_worker()
            until(lambda: not live.strangers())
        finetuned("backup", file, home, engine, **bucket)
    # A new server has nothing of what the one before had.
    with s3.running_s3(port) if bucket else nullcontext():
        new_home.mkdir()
        finetuned("restore", file, new_home, lost, **bucket)
        assert dump(lost) == dump(engine)
        if storage == "home":
            assert service_files(new_home) == service_files(home)
        assert {path.stat().st_mode & 0o077 for path in [file, *new_home.rglob("*")]} == {0}
        shutil.rmtree(home / "runs")
        add_model_and_dataset(new_home)
        url = lost.url.render_as_string(hide_password=False)
        with running(new_home, url, broker_url, **settings, **bucket) as live:
            live.client.headers.update(bearer(ADMIN_KEY))
            check(live, ids, artifacts)


def service_files(home: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(home).items() if name.startswith(("runs/", "blobs/"))}


@pytest.mark.exhaustive
def test_backup_of_a_busy_service_restores(
    tmp_path: Path, sessions: Sessions, engine: sa.Engine, lost: sa.Engine, database_url: str, broker_url: str
) -> None:
    home, new_home, file = tmp_path / "home", tmp_path / "new", tmp_path / "service.tar"
    add_model_and_dataset(home)
    with running(home, database_url, broker_url, **SETTINGS) as live:
        live.client.headers.update(bearer(ADMIN_KEY))
        ids = use(live)
        artifacts = live.client.get(f"/jobs/{ids['succeeded']}/artifacts").json()["data"]
        finetuned("backup", file, home, engine)
    new_home.mkdir()
    finetuned("restore", file, new_home, lost)
    add_model_and_dataset(new_home)
    with running(new_home, lost.url.render_as_string(hide_password=False), broker_url, **SETTINGS) as live:
        live.client.headers.update(bearer(ADMIN_KEY))
        check(live, ids, artifacts)
