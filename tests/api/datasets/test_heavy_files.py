"""A file that a job names on the server is read by a process of its own, where it is not a light one."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.dataset_reader import file_sha256
from tests.dataset.example_files import write_parquet
from tests.support.database import empty_database
from tests.support.files import ROW, add_model_and_dataset
from tests.support.service import Service, running

ARRAY = json.dumps([ROW] * 100_000).encode()
"""8 MB, which are 70 and more as Python has them."""


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    with running(home, database_url, broker_url, workers=()) as live:
        live.submit()  # what a first job loads is loaded
        yield live


def test_api_does_not_load_arrow_for_parquet(live: Service) -> None:
    pair = {"prompt": "a", "completion": "b"}
    path = write_parquet(live.home / "datasets", [pair] * 5)
    job = live.submit(dataset=path.name)
    assert job["recipe"]["dataset"]["sha256"] == file_sha256(path)
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
def test_large_json_array_does_not_grow_the_api(name: str, pack: Callable[[bytes], bytes], live: Service) -> None:
    (live.home / "datasets" / name).write_bytes(pack(ARRAY))
    before = largest(live.api.pid)
    job = live.submit(dataset=name)
    assert job["recipe"]["dataset"]["sha256"] == file_sha256(live.home / "datasets" / name)
    assert largest(live.api.pid) - before < len(ARRAY)


def largest(pid: int) -> int:
    """Bytes of memory that a process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10
