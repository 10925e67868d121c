from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import Checkpoint
from contract.recipe import Dataset, Recipe
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.publishing import publish_rows


@pytest.fixture
def job_id(home: Path, sessions: Sessions) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, Recipe(model="m", dataset=Dataset(path="d"))).id
        for step, final, loss in ((2, False, 1.5), (5, True, None)):
            event = Checkpoint(time=1, step=step, path=f"step-{step}", bytes=2, final=final, eval_loss=loss)
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)
    return job_id


def test_an_export_waits_and_is_told_of(client: TestClient, job_id: str) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": "merged"})
    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["source"], made["artifact"]) == ("queued", "adapter.tar.gz", None)
    assert client.get(f"/jobs/{job_id}/exports/{made['id']}").json() == made
    assert client.get(f"/jobs/{job_id}/exports").json() == {"data": [made], "has_more": False}
    assert client.post(f"/jobs/{job_id}/exports", json={"format": "merged"}).json() == made


def test_the_best_is_what_it_stands_for(client: TestClient, job_id: str) -> None:
    best = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "best.tar.gz"}).json()
    assert best["source"] == "checkpoint-2.tar.gz"
    same = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "checkpoint-2.tar.gz"}).json()
    assert same["id"] == best["id"]


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"format": "gguf"}, 422, "format"),
        ({"format": "merged", "source": "../x"}, 422, "source"),
        ({"format": "merged", "source": "trainer.log"}, 422, "source"),
        ({"format": "merged", "into": "x"}, 422, "into"),
        ({"format": "merged", "source": "checkpoint-3.tar.gz"}, 404, None),
        ({"format": "merged", "source": "merged.tar.gz"}, 404, None),
    ],
)
def test_what_cannot_be_made_is_refused(
    client: TestClient, job_id: str, asked: dict[str, str], status: int, told: str | None
) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, told)


@pytest.mark.parametrize("export", ["exp_" + "0" * 24, "no", "%00"])
def test_an_unknown_export_is_404(client: TestClient, job_id: str, export: str) -> None:
    assert client.get(f"/jobs/{job_id}/exports/{export}").status_code == 404
    assert client.get(f"/jobs/{job_id}/exports?after={export}").status_code == 404
