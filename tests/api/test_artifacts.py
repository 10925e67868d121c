import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import Checkpoint
from contract.recipe import Dataset, Recipe
from store import artifacts, jobs
from store.session import Sessions


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, Recipe(model="m", dataset=Dataset(path="d"))).id


@pytest.fixture
def run(home: Path, job_id: str, sessions: Sessions) -> Path:
    """A run folder with an adapter and a log, and their rows."""
    folder = home / "runs" / artifacts.run_path(job_id, 1)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "trainer.log").write_text("line\n")
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, Checkpoint(time=1, step=5, path="adapter", bytes=2, final=True))
        artifacts.add_log(session, job_id, 1, Path("trainer.log"), 5)
    return folder


def test_what_a_job_has_left_is_listed_and_downloaded(client: TestClient, run: Path, job_id: str) -> None:
    listed = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [(each["name"], each["kind"]) for each in listed] == [("adapter.tar.gz", "adapter"), ("trainer.log", "log")]
    assert client.get(f"/jobs/{job_id}/artifacts/trainer.log").text == "line\n"
    archive = client.get(f"/jobs/{job_id}/artifacts/adapter.tar.gz").content
    with tarfile.open(fileobj=BytesIO(archive)) as opened:
        assert opened.getnames() == ["adapter/adapter_config.json"]


def test_the_best_is_marked_in_the_list_and_downloaded_by_that_name(
    client: TestClient, run: Path, job_id: str, sessions: Sessions
) -> None:
    (run / "early").mkdir()
    (run / "early" / "adapter_config.json").write_text("{}")
    with sessions.begin() as session:
        early = Checkpoint(time=1, step=2, path="early", bytes=2, eval_loss=1.5)
        late = Checkpoint(time=1, step=5, path="adapter", bytes=2, final=True, eval_loss=1.75)
        for event in (early, late):
            artifacts.add_checkpoint(session, job_id, 1, event)
    listed = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [(each["name"], each["eval_loss"], each["best"]) for each in listed] == [
        ("adapter.tar.gz", 1.75, False),
        ("checkpoint-2.tar.gz", 1.5, True),
        ("trainer.log", None, False),
    ]
    answer = client.get(f"/jobs/{job_id}/artifacts/best.tar.gz")
    assert answer.headers["content-disposition"] == 'attachment; filename="best.tar.gz"'
    with tarfile.open(fileobj=BytesIO(answer.content)) as opened:
        assert opened.getnames() == ["best/adapter_config.json"]


def test_without_an_evaluation_nothing_is_the_best(client: TestClient, run: Path, job_id: str) -> None:
    assert not any(each["best"] for each in client.get(f"/jobs/{job_id}/artifacts").json()["data"])
    answer = client.get(f"/jobs/{job_id}/artifacts/best.tar.gz")
    assert answer.status_code == 404
    assert "evaluation.share" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["no", "%00", "a%00b", "x" * 5000])
def test_an_unknown_artifact_is_404(client: TestClient, job_id: str, name: str) -> None:
    answer = client.get(f"/jobs/{job_id}/artifacts/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert len(answer.text) < 500


@pytest.mark.parametrize("name", ["adapter.tar.gz", "trainer.log"])
def test_an_artifact_whose_files_have_gone_says_so(client: TestClient, run: Path, job_id: str, name: str) -> None:
    run.rename(run.with_name("gone"))
    answer = client.get(f"/jobs/{job_id}/artifacts/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "artifact_gone")
    assert "no longer" in answer.json()["error"]["message"]


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "trainer.log"])
def test_an_artifact_that_leads_out_of_the_runs_is_not_handed_out(
    client: TestClient, run: Path, job_id: str, target: str
) -> None:
    (run / "trainer.log").unlink()
    (run / "trainer.log").symlink_to(target)
    answer = client.get(f"/jobs/{job_id}/artifacts/trainer.log")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "artifact_gone")
