"""A file that a job names on the server is read by a process of its own, where it is not a light one."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataset.read import digest
from store.session import Sessions
from tests.dataset.writing import write_parquet
from tests.files import ROW
from tests.service import Service, furnish, running

ARRAY = json.dumps([ROW] * 300_000).encode()
"""24 MB, which are 200 and more as Python has them."""


@pytest.fixture
def live(tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions) -> Iterator[Service]:
    furnish(tmp_path)
    with running(tmp_path, database_url, broker_url, workers=()) as live:
        live.submit()  # what a first job loads is loaded
        yield live


def test_arrow_is_not_loaded_by_the_api_for_a_jobs_parquet_file(live: Service) -> None:
    pair = {"prompt": "a", "completion": "b"}
    path = write_parquet(live.home / "datasets", [pair] * 5)
    job = live.submit(dataset=path.name)
    assert job["recipe"]["dataset"]["sha256"] == digest(path)
    assert live.client.post("/plans", json={"model": "tiny", "dataset": path.name}).status_code == 200
    write_parquet(live.home / "datasets", [pair, {"prompt": "a", "completion": None}])
    validation = {"dataset": {"path": path.name}}
    answer = live.client.post("/jobs", json={"model": "tiny", "dataset": "rows.jsonl", "evaluation": validation})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "dataset_invalid"
    assert answer.json()["error"]["param"] == "evaluation.dataset"
    assert "row 2: " in answer.json()["error"]["message"]
    assert "libarrow" not in Path(f"/proc/{live.api.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("name", "pack"), [pytest.param("rows.json", bytes, marks=pytest.mark.exhaustive), ("rows.json.gz", gzip.compress)]
)
def test_an_array_of_json_that_a_job_names_does_not_make_the_api_larger(
    name: str, pack: Callable[[bytes], bytes], live: Service
) -> None:
    (live.home / "datasets" / name).write_bytes(pack(ARRAY))
    before = largest(live.api.pid)
    job = live.submit(dataset=name)
    assert job["recipe"]["dataset"]["sha256"] == digest(live.home / "datasets" / name)
    assert largest(live.api.pid) - before < len(ARRAY) / 2


def largest(pid: int) -> int:
    """Bytes of memory that a process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10
