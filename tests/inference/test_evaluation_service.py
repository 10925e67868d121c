"""Evaluations of a running service, and what becomes of them when parts of it are killed."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from store.models import EvaluatedRow, InferenceServer, JobEvaluation
from store.session import Sessions
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.trained_models import add_trained_model
from tests.support.waiting import until
from tests.trainer.tiny_models import ROWS

pytestmark = pytest.mark.slow

MANY = 60


@pytest.fixture(scope="module")
def live(serve_tiny: Callable[..., AbstractContextManager[Service]]) -> Iterator[Service]:
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        "FINETUNED_INFERENCE_IDLE": "PT5S",
        "OMP_NUM_THREADS": "1",
    }
    with serve_tiny(**settings) as running:
        lines = [json.dumps(row) + "\n" for row in ROWS]
        (running.home / "datasets" / "many.jsonl").write_text("".join(lines) * (MANY // len(ROWS)))
        yield running


@pytest.fixture(scope="module")
def job_id(live: Service, database: Sessions, make_adapter: Callable[..., Path]) -> str:
    save = partial(make_adapter, live.home / "models" / "tiny", 1, r=4, target_modules="all-linear")
    name = add_trained_model(database, live.home, "default", "tiny", save)
    return f"job_{name.rpartition(':')[2]}"


@pytest.fixture(scope="module")
def undisturbed(live: Service, job_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An evaluation of many.jsonl, and its rows."""
    done = wait(live, evaluate(live, job_id, dataset="many.jsonl", max_new_tokens=24))
    assert done["status"] == "succeeded", done
    return done, rows_of(live, done)


def evaluate(live: Service, job_id: str, **wanted: Any) -> dict[str, Any]:
    answer = live.client.post(f"/jobs/{job_id}/evaluations", json={"dataset": "rows.jsonl", **wanted})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


def now(live: Service, made: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = live.client.get(f"/jobs/{made['job_id']}/evaluations/{made['id']}").json()
    return read


def wait(live: Service, made: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
    until(lambda: now(live, made)["status"] in ("succeeded", "failed"), seconds)
    return now(live, made)


def rows_of(live: Service, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Page by page."""
    found: list[dict[str, Any]] = []
    while True:
        params = {"after": found[-1]["number"] if found else 0, "limit": 7}
        page = live.client.get(f"/jobs/{made['job_id']}/evaluations/{made['id']}/rows", params=params).json()
        found += page["data"]
        if not page["has_more"]:
            return found


def processes(live: Service, named: str) -> list[int]:
    return [pid for pid in live.everything() if named in " ".join(_command(pid))]


def _command(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def under_way(live: Service, job_id: str) -> dict[str, Any]:
    """An evaluation of many.jsonl that has done a part of the rows."""
    made = evaluate(live, job_id, dataset="many.jsonl", max_new_tokens=24)
    until(lambda: now(live, made)["done"] >= 4, 60)
    assert now(live, made)["status"] == "running"
    return made


def check_same(
    live: Service, made: dict[str, Any], undisturbed: tuple[dict[str, Any], list[dict[str, Any]]]
) -> dict[str, Any]:
    """The evaluation has succeeded, with the rows of one that nothing has disturbed, and leaves nothing."""
    done = wait(live, made)
    assert done["status"] == "succeeded", done
    rows, expected = rows_of(live, done), undisturbed[1]
    assert [each["number"] for each in rows] == [*range(1, MANY + 1)]
    # Not the answers: in 16 bits, which some CPUs have, they differ with what is in the same batch.
    for row, other in zip(rows, expected, strict=True):
        assert [row[name] for name in ("prompt", "reference")] == [other[name] for name in ("prompt", "reference")]
        for model in ("base", "adapter"):
            assert row[model]["loss"] == pytest.approx(other[model]["loss"], abs=1e-5)
    assert done["scores"]["adapter"]["loss"] == pytest.approx(undisturbed[0]["scores"]["adapter"]["loss"], abs=1e-5)
    until(lambda: not busy_devices(live) and not processes(live, "inference"), 60)
    assert not live.strangers()
    return done


def test_evaluation_compares_both_models(live: Service, job_id: str) -> None:
    made = evaluate(live, job_id, limit=9, max_new_tokens=12)
    assert (made["status"], made["examples"], made["done"], made["scores"]) == ("queued", 9, 0, None)
    done = wait(live, made)
    assert (done["status"], done["done"], done["dropped"]) == ("succeeded", 9, 0), done
    assert done["dataset"]["sha256"]
    assert done["settings"] == {
        "limit": 9,
        "max_new_tokens": 12,
        "temperature": 0,
        "seed": 0,
        "max_length": 2048,
    }
    rows = rows_of(live, done)
    assert [each["number"] for each in rows] == [*range(1, 10)]
    assert rows[3]["reference"] == "6."
    tokens = sum(each["supervised_tokens"] for each in rows)
    for name in ("base", "adapter"):
        scores = done["scores"][name]
        losses = sum(each[name]["loss"] * each["supervised_tokens"] for each in rows)
        assert scores["loss"] == pytest.approx(losses / tokens)
        assert scores["rouge_l"] == pytest.approx(sum(each[name]["rouge_l"] for each in rows) / 9)
    assert done["scores"]["base"]["loss"] != done["scores"]["adapter"]["loss"]
    artifact = live.client.get(f"/jobs/{job_id}/artifacts/{done['artifact']}")
    assert [json.loads(line) for line in artifact.text.splitlines()] == rows
    sha256 = done["dataset"]["sha256"]
    found = live.client.get("/evaluations", params={"dataset_sha256": sha256}).json()["data"]
    assert found == [done]
    assert live.client.get("/evaluations", params={"dataset_sha256": "0" * 64}).json()["data"] == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("killed", ["inference", "worker.publishing.daemon"])
def test_evaluation_outlives_a_killed_process(live: Service, job_id: str, undisturbed: Any, killed: str) -> None:
    made = under_way(live, job_id)
    for pid in processes(live, killed):
        if "guard.py" not in " ".join(_command(pid)):
            os.kill(pid, signal.SIGKILL)
    assert check_same(live, made, undisturbed)["attempt"] > 1


def test_evaluation_of_a_killed_worker_goes_on(live: Service, job_id: str, undisturbed: Any) -> None:
    made = under_way(live, job_id)
    live.api.kill()
    live.api.wait()
    live.kill_worker()
    live.start_api()
    live.start_worker()
    check_same(live, made, undisturbed)


@pytest.mark.exhaustive
def test_stopped_worker_hands_its_evaluation_over(
    live: Service, job_id: str, database: Sessions, undisturbed: Any
) -> None:
    made = under_way(live, job_id)
    live.stop_worker()
    assert now(live, made)["status"] == "queued"
    assert not processes(live, "inference")
    live.start_worker()
    check_same(live, made, undisturbed)


@pytest.mark.exhaustive
def test_waiting_job_takes_the_device_of_an_evaluation(live: Service, job_id: str, undisturbed: Any) -> None:
    made = under_way(live, job_id)
    job = live.submit(name="steps=100 sleep=0.1")["id"]
    live.wait(job, "running")
    until(lambda: "no device is free" in (now(live, made)["waits"] or ""), 30)
    assert live.job(job)["status"] == "running"
    live.wait(job, seconds=60)
    check_same(live, made, undisturbed)


def test_deleted_evaluation_ends_and_leaves_nothing(live: Service, job_id: str, database: Sessions) -> None:
    made = under_way(live, job_id)
    assert live.client.delete(f"/jobs/{job_id}/evaluations/{made['id']}").status_code == 204
    assert live.client.get(f"/jobs/{job_id}/evaluations/{made['id']}").status_code == 404
    with database() as session:
        assert not session.scalars(sa.select(EvaluatedRow).where(EvaluatedRow.evaluation_id == made["id"])).all()
    until(lambda: not processes(live, "inference") and not busy_devices(live), 30)
    with database() as session:
        assert not session.scalars(sa.select(InferenceServer)).all()
        assert not session.scalars(sa.select(JobEvaluation).where(JobEvaluation.status == "running")).all()


@pytest.mark.exhaustive
def test_changed_file_fails_and_says_so(live: Service, job_id: str) -> None:
    path = live.home / "datasets" / "soon-changed.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    live.stop_worker()
    made = evaluate(live, job_id, dataset=path.name)
    path.write_text(json.dumps(ROWS[1]) + "\n")
    live.start_worker()
    failed = wait(live, made)
    assert (failed["status"], failed["failure"]["code"]) == ("failed", "dataset_changed")
    assert failed["failure"]["param"] == "dataset"
