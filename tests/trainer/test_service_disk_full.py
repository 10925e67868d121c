"""The service with the real trainer, where the disk of the runs is full for a while."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from contract.run_dir import latest_state
from tests.support import service
from tests.support.database import empty_database
from tests.support.service import Service, busy_devices
from tests.support.waiting import until
from tests.trainer.tiny_models import add_model_and_rows

pytestmark = pytest.mark.slow

STEPS = 120
RECIPE = {
    "model": "tiny",
    "dataset": "rows.jsonl",
    "adapter": {"r": 64},
    "batch": {"micro_batch_size": 4},
    "schedule": {"epochs": STEPS // 3},
    "precision": "fp32",
    "checkpointing": {"every_steps": 10},
}


@pytest.fixture
def live(
    make_model: Callable[[str], Path], tmp_path: Path, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    empty_database(engine)
    add_model_and_rows(tmp_path, make_model("llama"))
    runs = tmp_path / "runs"
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", runs], capture_output=True, text=True)
    assert mounted.returncode == 0, f"a full disk wants one to fill, which root can mount: {mounted.stderr}"
    try:
        # With a reserve, no attempt would begin on a disk that is so small.
        settings = {"FINETUNED_RETRY_WAIT": "PT0.2S", "OMP_NUM_THREADS": "1", "FINETUNED_DISK_RESERVE": "0"}
        with service.running(tmp_path, database_url, broker_url, **settings) as running:
            yield running
    finally:
        subprocess.run(["umount", runs], check=True)


@pytest.mark.exhaustive
def test_job_on_a_full_disk_resumes_with_room(live: Service) -> None:
    undisturbed = live.submit(**RECIPE)["id"]
    assert live.wait(undisturbed, seconds=120)["status"] == "succeeded"
    job_id = live.submit(**RECIPE)["id"]
    live.wait_for_step(job_id, 15, seconds=60)
    filler = live.home / "runs" / "filler"
    fill(filler)
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=60)
    run = live.run_dir(job_id)
    state, damaged = latest_state([run])
    assert state is not None
    assert damaged == []
    assert [path for path in run.path.rglob("*") if path.name.endswith((".partial", ".tmp"))] == []
    filler.unlink()
    job = live.wait(job_id, seconds=120)
    assert job["status"] == "succeeded", job
    first, *later = (reported["resumed_step"] for reported in live.reported(job_id, "started"))
    assert first == 0
    assert min(later) >= 10
    assert {each["code"] for each in live.reported(job_id, "retry")} == {"disk_full"}
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, STEPS + 1))
    assert columns["loss"] == live.metrics(undisturbed)["loss"]
    until(lambda: not live.processes(job_id))
    until(lambda: not busy_devices(live))
    until(lambda: not live.strangers())


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while shutil.disk_usage(path).free:
            file.write(bytes(4096))
