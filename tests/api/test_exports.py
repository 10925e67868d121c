from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import CheckpointEvent
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.support.artifacts import publish_rows
from tests.support.jobs import make_recipe


@pytest.fixture
def job_id(home: Path, sessions: Sessions) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        for step, final, loss in ((2, False, 1.5), (5, True, None)):
            event = CheckpointEvent(time=1, step=step, path=f"step-{step}", bytes=2, final=final, eval_loss=loss)
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)
    return job_id


def test_export_waits_and_is_told_of(client: TestClient, job_id: str) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": "merged"})
    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["source"], made["artifact"]) == ("queued", "adapter.tar", None)
    assert client.get(f"/jobs/{job_id}/exports/{made['id']}").json() == made
    assert client.get(f"/jobs/{job_id}/exports").json() == {"data": [made], "has_more": False}
    assert client.post(f"/jobs/{job_id}/exports", json={"format": "merged"}).json() == made


def test_best_is_what_it_stands_for(client: TestClient, job_id: str) -> None:
    best = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "best.tar"}).json()
    assert best["source"] == "checkpoint-2.tar"
    same = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "checkpoint-2.tar"}).json()
    assert same["id"] == best["id"]


@pytest.mark.parametrize(
    ("requested", "status", "reported"),
    [
        ({"format": "gguf"}, 422, "format"),
        ({"format": "merged", "source": "../x"}, 422, "source"),
        ({"format": "merged", "source": "trainer.log"}, 422, "source"),
        ({"format": "merged", "into": "x"}, 422, "into"),
        ({"format": "merged", "source": "checkpoint-3.tar"}, 404, None),
        ({"format": "merged", "source": "merged.tar"}, 404, None),
    ],
)
def test_impossible_export_is_refused(
    client: TestClient, job_id: str, requested: dict[str, str], status: int, reported: str | None
) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json=requested)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, reported)


@pytest.mark.parametrize("export", ["exp_" + "0" * 24, "no", "%00"])
def test_unknown_export_is_404(client: TestClient, job_id: str, export: str) -> None:
    assert client.get(f"/jobs/{job_id}/exports/{export}").status_code == 404
    assert client.get(f"/jobs/{job_id}/exports?after={export}").status_code == 404
