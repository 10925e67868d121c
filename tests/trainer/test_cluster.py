"""The real trainer on a real Slurm of two nodes. Its losses are those of a run on the worker's own machine."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.service import Service
from tests.support.slurm import SlurmCluster
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

STEPS = 120
RECIPE = {
    "model": "tiny",
    "dataset": "rows.jsonl",
    "adapter": {"r": 4, "alpha": 8},
    "batch": {"micro_batch_size": 1, "effective_batch_size": 4},
    "optimizer": {"learning_rate": 1e-3},
    "schedule": {"epochs": 40},
    "precision": "fp32",
}
PROFILES = {"low": {"launcher": "slurm", "partition": "low", "gpus_per_node": 2, "max_nodes": 2}}


@pytest.fixture(scope="module")
def live(
    cluster: SlurmCluster,
    serve_tiny: Callable[..., AbstractContextManager[Service]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """With two workers: one hands jobs to the cluster, the other trains here."""
    profiles = tmp_path_factory.mktemp("settings") / "profiles.json"
    profiles.write_text(json.dumps(PROFILES))
    names = ("PATH", "SLURM_CONF")
    settings = {name: cluster.environment[name] for name in names} | {"OMP_NUM_THREADS": "1"}
    with serve_tiny(workers=("here",), **settings) as running:
        running.start_worker("login", FINETUNED_PROFILES=str(profiles))
        until(lambda: len(running.client.get("/workers").json()["data"]) == 2)
        yield running


@pytest.fixture(scope="module")
def undisturbed(live: Service) -> list[float]:
    job_id = submit(live, {})
    assert live.wait(job_id, seconds=240)["worker"] == "here"
    losses: list[float] = live.metrics(job_id)["loss"]
    assert len(losses) == STEPS
    return losses


def submit(live: Service, resources: dict[str, Any]) -> str:
    job_id: str = live.submit(**RECIPE, resources=resources)["id"]
    return job_id


def check_whole(live: Service, job_id: str, undisturbed: list[float], world_size: int) -> None:
    job = live.wait(job_id, seconds=300)
    assert job["status"] == "succeeded", job
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, STEPS + 1))
    assert columns["loss"] == pytest.approx(undisturbed, rel=1e-4)
    assert {started["world_size"] for started in live.reported(job_id, "started")} == {world_size}
    assert live.processes(job_id) == []


def check_went_on(live: Service, job_id: str) -> None:
    first, *later = (started["resumed_step"] for started in live.reported(job_id, "started"))
    assert first == 0
    assert min(later) > 0


def test_job_on_two_nodes_has_the_losses_of_one_machine(live: Service, undisturbed: list[float]) -> None:
    job_id = submit(live, {"profile": "low", "nodes": 2})
    check_whole(live, job_id, undisturbed, world_size=2)


def test_preempted_ranks_of_two_nodes_save_and_go_on(
    live: Service, cluster: SlurmCluster, undisturbed: list[float]
) -> None:
    job_id = submit(live, {"profile": "low", "nodes": 2})
    live.wait_for_step(job_id, 15, seconds=240)
    other = cluster.fill("high")
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=120)
    cluster.run("scancel", other)
    check_whole(live, job_id, undisturbed, world_size=2)
    check_went_on(live, job_id)
    assert live.job(job_id)["retries"] == 0


def test_two_ranks_of_a_node_pause_and_go_on(live: Service, undisturbed: list[float]) -> None:
    job_id = submit(live, {"profile": "low", "gpus": 2})
    live.wait_for_step(job_id, 15, seconds=240)
    live.ask("pause", job_id)
    live.wait(job_id, "paused", seconds=120)
    assert live.processes(job_id) == []
    live.ask("resume", job_id)
    check_whole(live, job_id, undisturbed, world_size=2)
    check_went_on(live, job_id)
