"""A download may be had in parts, and be gone on with."""

import hashlib
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import CheckpointEvent
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.support.api import Response
from tests.support.artifacts import publish
from tests.support.jobs import make_recipe


@pytest.fixture(params=["adapter.tar", "trainer.log", "adapter.tar/files/weights"])
def url(request: pytest.FixtureRequest, home: Path, sessions: Sessions) -> str:
    """The same promises for an archive, a file, and a file of an archive."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        artifacts.add_checkpoint(
            session, job_id, 1, CheckpointEvent(time=1, step=5, path="adapter", bytes=2, final=True)
        )
        artifacts.add_end(session, job_id, 1, Path("trainer.log"), 5, report=False)
    run = home / "runs" / artifacts.run_path(job_id, 1)
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "weights").write_bytes(os.urandom(300_000))
    (run / "trainer.log").write_bytes(os.urandom(200_000))
    publish(sessions, home)
    return f"/jobs/{job_id}/artifacts/{request.param}"


def get(client: TestClient, url: str, **headers: str) -> Response:
    return client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_whole_has_its_length_and_its_digest(client: TestClient, url: str) -> None:
    whole = get(client, url)
    assert whole.status_code == 200
    assert whole.headers["content-length"] == str(len(whole.content))
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert whole.headers["accept-ranges"] == "bytes"
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "accept-ranges", "content-disposition", "content-type"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("requested", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-", 100_000, None),
        ("bytes=70000-140000", 70_000, 140_001),
        ("bytes=-5", -5, None),
        ("bytes=-99999999", 0, None),
        ("bytes=5-99999999999", 5, None),
        ("bytes = 7-8", 7, 9),
    ],
)
def test_part_is_that_part_of_the_whole(
    client: TestClient, url: str, requested: str, start: int, end: int | None
) -> None:
    whole = get(client, url).content
    answer = get(client, url, range=requested)
    assert (answer.status_code, answer.content) == (206, whole[start:end])
    first = start % len(whole) if start < 0 else start
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("requested", ["bytes=99999999-", "bytes=99999999-99999999999", "bytes=-0"])
def test_range_behind_the_end_names_the_size(client: TestClient, url: str, requested: str) -> None:
    size = len(get(client, url).content)
    answer = get(client, url, range=requested)
    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "requested", ["bytes=0-1,5-9", "bytes=5-4", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=1-2x", ""]
)
def test_unsupported_ranges_get_the_whole_file(client: TestClient, url: str, requested: str) -> None:
    assert get(client, url, range=requested).status_code == 200


def test_range_of_changed_bytes_gets_the_whole_file(client: TestClient, url: str) -> None:
    etag = client.head(url).headers["etag"]
    assert get(client, url, range="bytes=5-", if_range=etag).status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert get(client, url, range="bytes=5-", if_range=other).status_code == 200


def test_unchanged_file_is_not_sent_again(client: TestClient, url: str) -> None:
    etag = client.head(url).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = get(client, url, if_none_match=known)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert get(client, url, if_none_match='"other"').status_code == 200
