"""The service on a machine with four GPUs that are not there: who is given which, and who else holds them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests import fake_nvml, service
from tests.conftest import empty
from tests.service import FAKE_TRAINER, Service, until

GIB = 2**30
LONG = "environment steps=1000 sleep=0.05"


class Gpus:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.hold()

    def hold(self, pids: dict[int, int] | None = None) -> None:
        """By processes, each on the GPU of that number."""
        fake_nvml.write(self.file, *(self._gpu(number, (pids or {}).get(number)) for number in range(4)))

    def _gpu(self, number: int, pid: int | None) -> dict[str, Any]:
        gpu = {"uuid": f"GPU-{number}", "name": "NVIDIA H100", "memory_used": (number + 1) * GIB // 8}
        return gpu | ({"processes": [{"pid": pid, "memory": 3 * GIB, "kind": "compute"}]} if pid is not None else {})


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Gpus:
    return Gpus(tmp_path_factory.mktemp("driver") / "gpus.json")


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str, gpus: Gpus
) -> Iterator[Service]:
    empty(engine)
    home = tmp_path_factory.mktemp("home")
    service.furnish(home)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} {FAKE_TRAINER}",
        "PYTHONPATH": str(fake_nvml.FOLDER),
        "FAKE_NVML": str(gpus.file),
    }
    with service.running(home, database_url, broker_url, **settings) as running:
        yield running


@pytest.fixture(autouse=True)
def all_are_free(live: Service, gpus: Gpus) -> Iterator[None]:
    gpus.hold()
    until(lambda: [device["status"] for device in devices(live)] == ["free"] * 4)
    yield
    for job in live.client.get("/jobs").json()["data"]:
        if job["status"] not in service.TERMINAL:
            live.ask("cancel?force=true", job["id"])


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def devices(live: Service) -> list[dict[str, Any]]:
    return [device for worker in live.client.get("/workers").json()["data"] for device in worker["devices"]]


def start(live: Service, **recipe: Any) -> str:
    """A job that trains until it is cancelled."""
    job_id: str = live.submit(**{"name": LONG, **recipe})["id"]
    live.wait_for_step(job_id, 1)
    return job_id


def given(live: Service, job_id: str) -> list[str]:
    """The GPUs that its trainer sees."""
    environment = json.loads((live.run_dir(job_id).path / "environment.json").read_text())
    return environment["CUDA_VISIBLE_DEVICES"].split(",")  # type: ignore[no-any-return]


def test_jobs_on_several_gpus_each_have_their_own(live: Service) -> None:
    first, second = (start(live, resources={"gpus": 2}) for _ in range(2))
    assert [*given(live, first), *given(live, second)] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert [device["jobs"] for device in devices(live)] == [[first], [first], [second], [second]]
    waiting = live.submit(resources={"gpus": 2})["id"]
    live.ask("cancel", first)
    assert live.wait(waiting)["status"] == "succeeded"


def test_a_gpu_that_another_process_holds_is_not_given_until_it_is_gone(
    live: Service, gpus: Gpus, stranger: "subprocess.Popen[bytes]"
) -> None:
    gpus.hold({0: stranger.pid})
    held = until(lambda: next((device for device in devices(live) if device["status"] == "busy"), None))
    assert held["uuid"] == "GPU-0"
    assert held["reason"] == f"It is used by sleep (pid {stranger.pid}, 3.0 GiB), which is not a job's."
    assert given(live, start(live)) == ["GPU-1"]
    waiting = live.submit(name="environment", resources={"gpus": 3})["id"]
    four = live.submit(name="environment", resources={"gpus": 4})["id"]
    assert live.job(four)["status"] == "queued"
    live.ask("cancel", four)
    gpus.hold()
    assert live.wait(waiting)["status"] == "succeeded"
    assert given(live, waiting) == ["GPU-0", "GPU-2", "GPU-3"]


def test_a_job_that_uses_its_gpu_does_not_hold_it(
    live: Service, gpus: Gpus, stranger: "subprocess.Popen[bytes]"
) -> None:
    job_id = start(live, name=f"{LONG} ranks=1")
    (rank,) = (pid for pid in live.processes(job_id) if b"--rank" in service.told_of(pid, "cmdline"))
    gpus.hold({0: rank, 3: stranger.pid})
    until(lambda: devices(live)[3]["status"] == "busy")
    assert (devices(live)[0]["status"], devices(live)[0]["reason"]) == ("leased", None)


def test_jobs_that_may_share_a_gpu_run_on_it_at_once(live: Service) -> None:
    alone = start(live)
    first, second = (start(live, resources={"allow_sharing": True}) for _ in range(2))
    assert given(live, alone) == ["GPU-0"]
    assert given(live, first) == given(live, second) == ["GPU-1"]
    assert sorted(devices(live)[1]["jobs"]) == sorted([first, second])
    assert live.job(first)["status"] == live.job(second)["status"] == "running"


def test_the_exit_report_of_a_cancelled_job_has_the_memory_of_its_gpus_before_and_after(live: Service) -> None:
    job_id = start(live, resources={"gpus": 2})
    live.ask("cancel", job_id)
    exit_report = live.wait(job_id)["exit_report"]
    assert exit_report["memory_before"] == exit_report["memory_after"] == {"0": GIB // 8, "1": GIB // 4}


def test_a_job_that_wants_more_gpus_than_a_machine_has_is_refused_at_once(live: Service) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "resources": {"gpus": 8}}
    answer = live.client.post("/jobs", json=recipe)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("devices_unavailable", "resources.gpus")
    assert "got 8" in error["message"]
    assert "4 x NVIDIA H100" in error["message"]
