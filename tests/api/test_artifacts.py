import hashlib
import os
import resource
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import Checkpoint
from contract.recipe import Dataset, Recipe
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.publishing import publish


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
        artifacts.add_end(session, job_id, 1, Path("trainer.log"), 5, report=False)
    publish(sessions, home)
    return folder


def test_what_a_job_has_left_is_listed_and_downloaded(client: TestClient, run: Path, job_id: str) -> None:
    listed = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [(each["name"], each["kind"]) for each in listed] == [("adapter.tar.gz", "adapter"), ("trainer.log", "log")]
    assert client.get(f"/jobs/{job_id}/artifacts/trainer.log").text == "line\n"
    archive = client.get(f"/jobs/{job_id}/artifacts/adapter.tar.gz").content
    assert (len(archive), digest(archive)) == (listed[0]["bytes"], listed[0]["sha256"])
    with tarfile.open(fileobj=BytesIO(archive)) as opened:
        assert opened.getnames() == ["adapter/adapter_config.json"]


def test_the_best_is_marked_in_the_list_and_downloaded_by_that_name(
    client: TestClient, home: Path, run: Path, job_id: str, sessions: Sessions
) -> None:
    for folder in ("early", "late"):
        (run / folder).mkdir()
        (run / folder / "adapter_config.json").write_text("{}")
    with sessions.begin() as session:
        early = Checkpoint(time=1, step=2, path="early", bytes=2, eval_loss=1.5)
        late = Checkpoint(time=1, step=5, path="late", bytes=2, final=True, eval_loss=1.75)
        for event in (early, late):
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish(sessions, home)
    listed = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [(each["name"], each["eval_loss"], each["best"]) for each in listed] == [
        ("adapter.tar.gz", 1.75, False),
        ("checkpoint-2.tar.gz", 1.5, True),
        ("trainer.log", None, False),
    ]
    answer = client.get(f"/jobs/{job_id}/artifacts/best.tar.gz")
    assert answer.headers["content-disposition"] == 'attachment; filename="best.tar.gz"'
    assert digest(answer.content) == listed[1]["sha256"]
    with tarfile.open(fileobj=BytesIO(answer.content)) as opened:
        assert opened.getnames() == ["checkpoint-2/adapter_config.json"]


def test_an_archive_is_sent_without_a_file_that_it_is_written_to(
    client: TestClient, home: Path, run: Path, job_id: str, sessions: Sessions
) -> None:
    (run / "large").mkdir()
    (run / "large" / "weights").write_bytes(os.urandom(4 << 20))
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, Checkpoint(time=1, step=7, path="large", bytes=2))
    publish(sessions, home)
    most, hardest = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file of this process can have more bytes, neither on a disk nor in memory.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hardest))
    try:
        with pytest.raises(OSError, match="File too large"), tempfile.TemporaryFile() as file:
            file.write(bytes(2 << 20))
        answer = client.get(f"/jobs/{job_id}/artifacts/checkpoint-7.tar.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hardest))
    assert (answer.status_code, len(answer.content) > 4 << 20) == (200, True)
    with tarfile.open(fileobj=BytesIO(answer.content)) as opened:
        assert opened.getnames() == ["checkpoint-7/weights"]


def test_without_an_evaluation_nothing_is_the_best(client: TestClient, run: Path, job_id: str) -> None:
    assert not any(each["best"] for each in client.get(f"/jobs/{job_id}/artifacts").json()["data"])
    answer = client.get(f"/jobs/{job_id}/artifacts/best.tar.gz")
    assert answer.status_code == 404
    assert "evaluation.fraction" in answer.json()["error"]["message"]


def test_what_is_not_published_is_not_listed_and_says_so(
    client: TestClient, run: Path, job_id: str, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 2, Checkpoint(time=1, step=6, path="adapter", bytes=2, final=True))
    listed = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [each["name"] for each in listed] == ["trainer.log"]
    answer = client.get(f"/jobs/{job_id}/artifacts/adapter.tar.gz")
    assert answer.status_code == 404
    assert "yet" in answer.json()["error"]["message"]


def test_a_file_of_an_archive_is_downloaded_by_itself(client: TestClient, run: Path, job_id: str) -> None:
    (listed, _) = client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert listed["files"] == [{"name": "adapter_config.json", "bytes": 2, "sha256": digest(b"{}")}]
    answer = client.get(f"/jobs/{job_id}/artifacts/adapter.tar.gz/files/adapter_config.json")
    assert (answer.text, answer.headers["content-type"]) == ("{}", "application/json")
    assert answer.headers["etag"] == f'"{digest(b"{}")}"'


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("adapter.tar.gz", "none.json"),
        ("adapter.tar.gz", "../trainer.log"),
        ("adapter.tar.gz", "%2e%2e/trainer.log"),
        ("adapter.tar.gz", "..%2ftrainer.log"),
        ("adapter.tar.gz", "/etc/passwd"),
        ("adapter.tar.gz", "%2fetc%2fpasswd"),
        ("adapter.tar.gz", "adapter_config.json/"),
        ("adapter.tar.gz", "a%00b"),
        ("trainer.log", "trainer.log"),
    ],
)
def test_no_other_file_is_handed_out(client: TestClient, run: Path, job_id: str, name: str, path: str) -> None:
    answer = client.get(f"/jobs/{job_id}/artifacts/{name}/files/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


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


def test_an_artifact_whose_files_were_shortened_breaks_off(client: TestClient, run: Path, job_id: str) -> None:
    (run / "trainer.log").write_text("")
    answer = client.get(f"/jobs/{job_id}/artifacts/trainer.log")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "artifact_gone")


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "trainer.log"])
def test_an_artifact_that_leads_out_of_the_runs_is_not_handed_out(
    client: TestClient, run: Path, job_id: str, target: str
) -> None:
    (run / "trainer.log").unlink()
    (run / "trainer.log").symlink_to(target)
    answer = client.get(f"/jobs/{job_id}/artifacts/trainer.log")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "artifact_gone")
