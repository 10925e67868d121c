"""A request that fails on the way, or at a bad moment, is sent again and done once."""

import asyncio
import time
from pathlib import Path

import pytest

from finetuned import AsyncClient, Client, Conflict, ServiceFailed, TooMany
from tests.finetuned.fake_api import FakeApi, job


def error(code: str) -> dict[str, object]:
    return {"error": {"code": code, "message": f"a message about {code}", "param": None}}


BUSY = [
    (0, {}, None),
    (503, {}, error("database_unavailable")),
    (503, {"retry-after": "0"}, error("draining")),
    (429, {"retry-after": "0"}, error("too_many_requests")),
    (409, {"retry-after": "0"}, error("request_in_progress")),
]


@pytest.mark.parametrize("answer", BUSY, ids=lambda answer: f"{answer[0]}")
def test_repeated_submission_keeps_its_idempotency_key(
    api: FakeApi, answer: tuple[int, dict[str, str], object]
) -> None:
    api.answers["POST /jobs"] = (201, job())
    api.busy = [answer]
    with Client(api.url) as client:
        assert client.jobs.create({"model": "m"}).id == "job_1"
    assert len(api.bodies) == 2
    assert len(set(api.idempotency_keys)) == 1
    assert api.idempotency_keys[0]


def test_async_client_repeats_a_submission_too(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (201, job())
    api.busy = [(0, {}, None)]

    async def submit() -> str:
        async with AsyncClient(api.url) as client:
            return (await client.jobs.create({})).id

    assert asyncio.run(submit()) == "job_1"
    assert len(set(api.idempotency_keys)) == 1


def test_repeated_upload_sends_the_whole_file(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("the rows")
    api.answers["POST /datasets"] = (201, {"id": "file-1", "status": "processed"})
    api.busy = [(503, {}, error("draining"))]
    with Client(api.url) as client:
        client.datasets.upload(tmp_path / "rows.jsonl")
    assert all(b"the rows" in body for body in api.bodies)
    assert len(api.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((429, {}, error("quota_exceeded")), TooMany),
        ((429, {"retry-after": "60"}, error("too_many_requests")), TooMany),
        ((409, {}, error("job_not_paused")), Conflict),
        ((500, {"x-request-id": "req_1"}, error("internal_error")), ServiceFailed),
    ],
)
def test_lasting_refusal_is_raised_at_once(
    api: FakeApi, answer: tuple[int, dict[str, str], object], kind: type[Exception]
) -> None:
    api.busy = [answer]
    with Client(api.url) as client, pytest.raises(kind) as raised:
        client.jobs.create({})
    assert len(api.bodies) == 1
    assert getattr(raised.value, "request_id") == answer[1].get("x-request-id")  # noqa: B009


def test_retries_end(api: FakeApi) -> None:
    api.busy = [(503, {"retry-after": "0"}, error("draining"))] * 9
    began = time.monotonic()
    with Client(api.url, max_retries=3) as client, pytest.raises(ServiceFailed, match="a message about draining"):
        client.jobs.get("job_1")
    assert len(api.busy) == 5
    assert time.monotonic() - began < 5
