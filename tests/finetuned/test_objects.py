"""What the client makes of the service's answers."""

import asyncio
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetuned import AsyncClient, Client, UnexpectedAnswer, WaitTimeout
from finetuned.json_object import Object
from finetuned.objects import datasets, jobs, operations, plans
from finetuned.objects.jobs import JobFields, Metrics
from finetuned.objects.operations import Key
from tests.finetuned.fake_api import FakeApi, job

ROOT = Path(__file__).parents[2]
KINDS = [
    each
    for module in (datasets, jobs, operations, plans)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Object)
]


def test_field_of_a_newer_service_is_kept_raw() -> None:
    read = JobFields.from_json({**job(), "colour": "blue", "status": "dreaming"})
    assert (read.status, read.ended, read.raw["colour"]) == ("dreaming", False, "blue")
    assert read.queue is not None
    assert read.queue.position == 3
    assert read.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_missing_and_null_fields_are_none_or_empty() -> None:
    for value in ({"id": "a", "status": "queued"}, {"id": "a", "status": "queued", "devices": None, "queue": None}):
        read = JobFields.from_json(value)
        assert (read.devices, read.queue, read.recipe, read.created_at) == ((), None, {}, None)


def test_trackers_of_a_job_are_read() -> None:
    tracker = {"type": "mlflow", "status": "retrying", "step": 3, "behind": 2, "error": "MLflow answers 503"}
    (read,) = JobFields.from_json({**job(), "tracking": [tracker]}).tracking
    assert (read.type, read.status, read.behind, read.error) == ("mlflow", "retrying", 2, "MLflow answers 503")


@given(
    st.dictionaries(
        st.sampled_from(["id", "status", "queue", "devices", "created_at", "bytes"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_any_answer_is_read_or_refused(value: dict[str, Any]) -> None:
    for kind in KINDS:
        with suppress(UnexpectedAnswer):
            assert kind.from_json(value).raw == value


def test_secret_is_not_in_a_repr() -> None:
    assert "ftk_1" not in repr(Key.from_json({"id": "key_1", "secret": "ftk_1"}))
    assert "ftk_1" not in repr(Client("http://127.0.0.1:1", key="ftk_1"))


def test_client_takes_the_variables_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNED_URL", "http://host:1/")
    monkeypatch.setenv("FINETUNED_API_KEY", "ftk_1")
    client = Client()
    assert (client.url, client.key) == ("http://host:1", "ftk_1")
    assert Client("http://other:2", key="ftk_2").key == "ftk_2"


def columns(first: int, count: int) -> dict[str, Any]:
    steps = list(range(first, first + count))
    return {"job_id": "job_1", "columns": {"step": steps, "loss": [1 / step for step in steps]}, "evaluations": {}}


def test_metrics_become_a_data_frame(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1/metrics"] = (200, columns(1, 5))
    with Client(api.url) as client:
        frame = pandas.DataFrame(client.jobs.at("job_1").metrics())
    assert list(frame.columns) == ["step", "loss"]
    assert frame["loss"].iloc[-1] == 1 / 5


def test_metrics_of_a_long_run_are_all_read(api: FakeApi) -> None:
    api.busy = [(200, {}, columns(1, 10_000)), (200, {}, columns(10_001, 10_000)), (200, {}, columns(20_001, 3))]
    with Client(api.url) as client:
        metrics = client.jobs.at("job_1").metrics()
    assert metrics["step"] == list(range(1, 20_004))
    assert isinstance(metrics, Metrics)


def test_wait_gives_the_ended_job_or_times_out(api: FakeApi) -> None:
    api.busy = [(200, {}, job("running"))]
    api.answers["GET /jobs/job_1"] = (200, job("succeeded"))
    with Client(api.url) as client:
        with pytest.raises(WaitTimeout, match="job job_1 is running after 0 s"):
            client.jobs.at("job_1").wait(timeout=0)
        assert client.jobs.at("job_1").wait().succeeded


def test_async_client_reads_lists_and_events(api: FakeApi) -> None:
    api.answers["GET /jobs"] = (200, {"data": [job()], "has_more": False})
    api.streams = ['event: status\nid: 1.0\ndata: {"status": "succeeded"}\n\n']

    async def read() -> list[str]:
        async with AsyncClient(api.url) as client:
            return [event.type async for listed in client.jobs.list() async for event in listed.watch()]

    assert asyncio.run(read()) == ["status"]


def test_generated_client_is_current() -> None:
    command = [sys.executable, "scripts/client.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"\bawait\b|Async", (ROOT / "finetuned/_sync/jobs.py").read_text())
