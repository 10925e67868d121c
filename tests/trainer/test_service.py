"""The service with the real trainer, on two machines: jobs on both of them, and faults. A run that was disturbed has
the losses of one that was not."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.network import NetworkMachine, two_machines
from tests.support.processes import read_proc
from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow

STEPS = 120
RECIPE = {
    "model": "tiny",
    "dataset": "rows.jsonl",
    "adapter": {"r": 4, "alpha": 8},
    "batch": {"micro_batch_size": 1, "effective_batch_size": 4},
    "optimizer": {"learning_rate": 1e-3},
    "schedule": {"epochs": 40},
    "precision": "fp32",
    "checkpointing": {"every_steps": 10},
}
LONE_RANK = {"gpus": 1}
"""Which no torchrun has started: the trainer is the guard's own child."""
TWO_RANKS = {"gpus": 2}
TWO_MACHINES = {"nodes": 2}


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[NetworkMachine, NetworkMachine]]:
    with two_machines() as machines:
        yield machines


@pytest.fixture(scope="module")
def live(
    machines: tuple[NetworkMachine, NetworkMachine],
    serve_tiny: Callable[..., AbstractContextManager[Service]],
) -> Iterator[Service]:
    settings = {"FINETUNED_RETRY_WAIT": "PT0.2S", "OMP_NUM_THREADS": "1"}
    with serve_tiny(workers=(), **settings) as running:
        for name, machine in zip("ab", machines, strict=True):
            running.start_worker(name, inside=machine.command([]), FINETUNED_ADDRESS=machine.address)
        until(lambda: len(running.client.get("/workers").json()["data"]) == 2)
        yield running


def submit(live: Service, **fields: Any) -> str:
    job_id: str = live.submit(**{**RECIPE, **fields})["id"]
    return job_id


@pytest.fixture(scope="module")
def undisturbed(live: Service) -> list[float]:
    job_id = submit(live)
    assert live.wait(job_id, seconds=120)["status"] == "succeeded"
    losses = live.metrics(job_id)["loss"]
    assert len(losses) == STEPS
    return losses


def check_whole(live: Service, job_id: str, undisturbed: list[float]) -> None:
    job = live.wait(job_id, seconds=120)
    assert job["status"] == "succeeded", job
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, STEPS + 1))
    assert columns["loss"] == pytest.approx(undisturbed, rel=1e-4)
    until(lambda: not live.processes(job_id))
    devices = [device for worker in live.client.get("/workers").json()["data"] for device in worker["devices"]]
    assert {device["status"] for device in devices} == {"free"}
    until(lambda: not live.strangers())


def check_went_on(live: Service, job_id: str) -> None:
    """From a state, once one has been saved: a run that begins anew has the same losses."""
    first, *later = (reported["resumed_step"] for reported in live.reported(job_id, "started"))
    assert first == 0
    assert later
    assert min(later) >= 10


def find(live: Service, job_id: str, attempt: int, *words: str) -> list[int]:
    commands = {pid: read_proc(pid, "cmdline") for pid in live.processes_of(job_id, attempt)}
    return [
        pid
        for pid, command in commands.items()
        if all(word.encode() in command for word in words) and b"guard.py" not in command
    ]


def torchruns(live: Service, job_id: str) -> list[int]:
    return find(live, job_id, 1, "torch.distributed.run")


def ranks(live: Service, job_id: str) -> list[int]:
    return sorted(set(find(live, job_id, 1)) - set(torchruns(live, job_id)))


def guards(live: Service, job_id: str) -> list[int]:
    return [pid for pid in live.processes(job_id) if b"guard.py" in read_proc(pid, "cmdline")]


@pytest.mark.exhaustive
def test_job_on_two_machines_has_equal_losses(live: Service, undisturbed: list[float]) -> None:
    job_id = submit(live, resources=TWO_MACHINES)
    live.wait_for_step(job_id, 1, seconds=60)
    assert {device["worker"] for device in live.job(job_id)["devices"]} == {"a", "b"}
    check_whole(live, job_id, undisturbed)
    (started,) = live.reported(job_id, "started")
    assert started["world_size"] == 2


@pytest.mark.exhaustive
def test_cancelled_job_frees_both_machines(live: Service) -> None:
    job_id = submit(live, resources=TWO_MACHINES, schedule={"epochs": 1000})
    live.wait_for_step(job_id, 1, seconds=60)
    live.ask("cancel", job_id)
    assert live.wait(job_id, seconds=60)["status"] == "cancelled"
    assert live.processes(job_id) == []
    assert live.job(job_id)["devices"] == []


@pytest.mark.exhaustive
def test_lost_peer_ends_the_attempt_and_job_resumes(live: Service, undisturbed: list[float]) -> None:
    job_id = submit(live, resources=TWO_MACHINES)
    live.wait_for_step(job_id, 15, seconds=60)
    assert {device["worker"] for device in live.job(job_id)["devices"]} == {"a", "b"}
    (other,) = find(live, job_id, 1, "torch.distributed.run", "is_host=false")
    os.kill(other, signal.SIGKILL)
    check_whole(live, job_id, undisturbed)
    check_went_on(live, job_id)
    assert {reported["world_size"] for reported in live.reported(job_id, "started")} == {2}


@pytest.mark.parametrize(
    ("resources", "victims"),
    [
        pytest.param(TWO_RANKS, ranks, marks=pytest.mark.exhaustive),
        pytest.param(TWO_RANKS, torchruns, marks=pytest.mark.exhaustive),
        pytest.param(LONE_RANK, ranks, marks=pytest.mark.exhaustive),
        pytest.param(LONE_RANK, guards, marks=pytest.mark.exhaustive),
    ],
    ids=["a rank", "torchrun", "a lone rank", "a lone rank's guard"],
)
def test_process_of_a_job_is_killed(
    live: Service,
    undisturbed: list[float],
    resources: dict[str, int],
    victims: Callable[[Service, str], list[int]],
) -> None:
    job_id = submit(live, resources=resources)
    live.wait_for_step(job_id, 15, seconds=60)
    os.kill(victims(live, job_id)[-1], signal.SIGKILL)
    check_whole(live, job_id, undisturbed)
    check_went_on(live, job_id)


@pytest.mark.exhaustive
@pytest.mark.parametrize("resources", [LONE_RANK, TWO_RANKS], ids=["a lone rank", "two ranks"])
def test_worker_is_killed(
    live: Service,
    machines: tuple[NetworkMachine, NetworkMachine],
    undisturbed: list[float],
    resources: dict[str, int],
) -> None:
    job_id = submit(live, resources=resources)
    live.wait_for_step(job_id, 15, seconds=60)
    name = live.job(job_id)["worker"]
    live.kill_worker(name)
    machine = machines["ab".index(name)]
    live.start_worker(name, inside=machine.command([]), FINETUNED_ADDRESS=machine.address)
    check_whole(live, job_id, undisturbed)
    check_went_on(live, job_id)
