"""Merged models, while workers die."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.session import Sessions
from tests.service import FAKE_TRAINER, Service, furnish, running, until

FAKE_MERGER = Path(__file__).parents[1] / "fake_merger.py"


@pytest.fixture
def live(tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions) -> Iterator[Service]:
    furnish(tmp_path)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} {FAKE_TRAINER}",
        "FINETUNED_MERGER": f"{sys.executable} {FAKE_MERGER}",
    }
    with running(tmp_path, database_url, broker_url, workers=("first",), **settings) as live:
        yield live


def trained(live: Service, name: str) -> str:
    job_id: str = live.submit(name=name)["id"]
    assert live.wait(job_id, seconds=90)["status"] == "succeeded"
    return job_id


def export(live: Service, job_id: str, **asked: Any) -> dict[str, Any]:
    answer = live.client.post(f"/jobs/{job_id}/exports", json={"format": "merged", **asked})
    assert answer.status_code == 202, answer.text
    return answer.json()  # type: ignore[no-any-return]


def wait(live: Service, made: dict[str, Any], *statuses: str, seconds: float = 90) -> dict[str, Any]:
    url = f"/jobs/{made['job_id']}/exports/{made['id']}"
    return until(lambda: (now := live.client.get(url).json())["status"] in statuses and now, seconds)  # type: ignore[no-any-return]


def merging(live: Service, job_id: str) -> list[Path]:
    """Of each merger that has begun with an export of the job."""
    return list((live.home / "runs" / job_id / "exports").glob("*/merger.pid"))


def test_an_export_is_made_and_is_an_artifact_and_asked_for_again_it_is_the_same(live: Service) -> None:
    job_id = trained(live, "steps=2 every=1")
    made = export(live, job_id)
    assert wait(live, made, "succeeded", "failed")["artifact"] == "merged.tar.gz"
    assert export(live, job_id)["id"] == made["id"]
    base = f"/jobs/{job_id}/artifacts"
    (listed,) = [each for each in live.client.get(base).json()["data"] if each["kind"] == "merged"]
    assert [file["name"] for file in listed["files"]] == ["config.json", "seen.txt"]
    assert len(live.client.get(f"{base}/merged.tar.gz").content) == listed["bytes"]
    assert live.client.get(f"{base}/merged.tar.gz/files/seen.txt").text == ""
    other = export(live, job_id, source="checkpoint-1.tar.gz")
    assert other["id"] != made["id"]
    assert wait(live, other, "succeeded", "failed")["artifact"] == "merged-checkpoint-1.tar.gz"
    page = live.client.get(f"/jobs/{job_id}/exports", params={"limit": 1}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([other["id"]], True)


def test_an_export_that_fails_says_why_and_may_be_asked_for_anew(live: Service) -> None:
    job_id = trained(live, "unmergeable")
    made = export(live, job_id)
    failed = wait(live, made, "succeeded", "failed")
    assert (failed["failure"]["code"], failed["failure"]["param"]) == ("model_unsupported", "model")
    assert export(live, job_id)["id"] != made["id"]


def test_an_export_whose_worker_is_killed_is_made_by_another_within_fifteen_seconds(live: Service) -> None:
    job_id = trained(live, "slow")
    made = export(live, job_id)
    (pid_file,) = until(lambda: merging(live, job_id), 60)
    merger = Path(f"/proc/{pid_file.read_text()}")
    live.start_worker("second")
    until(lambda: "the clerk is at work" in (live.home / "second.log").read_text(), 60)
    live.kill_worker("first")
    killed = time.monotonic()
    until(lambda: len(merging(live, job_id)) == 2)
    assert time.monotonic() - killed < 15
    assert not merger.exists()
    done = wait(live, made, "succeeded", "failed")
    assert (done["status"], done["worker"], done["attempt"]) == ("succeeded", "second", 2)


@pytest.mark.exhaustive
def test_a_worker_that_is_told_to_stop_leaves_its_export_to_another_at_once(live: Service) -> None:
    job_id = trained(live, "slow")
    made = export(live, job_id)
    until(lambda: merging(live, job_id), 60)
    live.stop_worker("first")
    assert live.client.get(f"/jobs/{job_id}/exports/{made['id']}").json()["status"] == "queued"
    live.start_worker("second")
    assert wait(live, made, "succeeded", "failed")["worker"] == "second"
