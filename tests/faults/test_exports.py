"""Merged models, while workers die."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support import fake_merger
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.service import FAKE_TRAINER, Service, running
from tests.support.waiting import until

pytestmark = pytest.mark.slow

FAKE_MERGER = Path(fake_merger.__file__)


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_EXPORTER": f"{sys.executable} -P {FAKE_MERGER}",
    }
    with running(home, database_url, broker_url, workers=("first",), **settings) as live:
        yield live


def trained(live: Service, name: str) -> str:
    job_id: str = live.submit(name=name)["id"]
    assert live.wait(job_id, seconds=90)["status"] == "succeeded"
    return job_id


def export(live: Service, job_id: str, **requested: Any) -> dict[str, Any]:
    answer = live.client.post(f"/jobs/{job_id}/exports", json={"format": "merged", **requested})
    assert answer.status_code == 202, answer.text
    return answer.json()


def wait(live: Service, made: dict[str, Any], *statuses: str, seconds: float = 90) -> dict[str, Any]:
    url = f"/jobs/{made['job_id']}/exports/{made['id']}"
    return until(lambda: (now := live.client.get(url).json())["status"] in statuses and now, seconds)


def merging(live: Service, job_id: str) -> list[Path]:
    """Of each merger that has begun with an export of the job."""
    return list((live.home / "runs" / job_id / "exports").glob("*/merger.pid"))


def test_export_is_made_once_and_listed(live: Service) -> None:
    job_id = trained(live, "steps=2 every=1")
    made = export(live, job_id)
    assert wait(live, made, "succeeded", "failed")["artifact"] == "merged.tar"
    assert export(live, job_id)["id"] == made["id"]
    base = f"/jobs/{job_id}/artifacts"
    (listed,) = [each for each in live.client.get(base).json()["data"] if each["kind"] == "merged"]
    assert [file["name"] for file in listed["files"]] == ["README.md", "config.json", "loss.png", "seen.txt"]
    assert len(live.client.get(f"{base}/merged.tar").content) == listed["bytes"]
    assert live.client.get(f"{base}/merged.tar/files/seen.txt").text == ""
    other = export(live, job_id, source="checkpoint-1.tar")
    assert other["id"] != made["id"]
    assert wait(live, other, "succeeded", "failed")["artifact"] == "merged-checkpoint-1.tar"
    page = live.client.get(f"/jobs/{job_id}/exports", params={"limit": 1}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([other["id"]], True)


@pytest.mark.exhaustive
def test_failed_export_says_why_and_may_be_repeated(live: Service) -> None:
    job_id = trained(live, "unmergeable")
    made = export(live, job_id)
    failed = wait(live, made, "succeeded", "failed")
    assert (failed["failure"]["code"], failed["failure"]["param"]) == ("model_unsupported", "model")
    assert export(live, job_id)["id"] != made["id"]


@pytest.mark.exhaustive
def test_export_of_killed_worker_moves_within_fifteen_seconds(live: Service) -> None:
    job_id = trained(live, "slow")
    made = export(live, job_id)
    (pid_file,) = until(lambda: merging(live, job_id), 60)
    merger = Path(f"/proc/{pid_file.read_text()}")
    live.start_worker("second")
    until(lambda: "the publishing process has started" in (live.home / "second.log").read_text(), 60)
    live.kill_worker("first")
    killed = time.monotonic()
    until(lambda: len(merging(live, job_id)) == 2)
    assert time.monotonic() - killed < 15
    assert not merger.exists()
    done = wait(live, made, "succeeded", "failed")
    assert (done["status"], done["worker"], done["attempt"]) == ("succeeded", "second", 2)
    let_first_work_alone(live)


@pytest.mark.exhaustive
def test_stopped_worker_hands_its_export_over(live: Service) -> None:
    job_id = trained(live, "slow")
    made = export(live, job_id)
    until(lambda: merging(live, job_id), 60)
    live.stop_worker("first")
    assert live.client.get(f"/jobs/{job_id}/exports/{made['id']}").json()["status"] == "queued"
    live.start_worker("second")
    assert wait(live, made, "succeeded", "failed")["worker"] == "second"
    let_first_work_alone(live)


def let_first_work_alone(live: Service) -> None:
    """As the next test finds them."""
    live.stop_worker("second")
    live.start_worker("first")
