from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.recipe import Recipe
from worker.command import Rendezvous, torchrun, trainer_command
from worker.settings import WorkerSettings

RUN = Path("/runs/job/attempt-2")


@pytest.fixture
def settings() -> WorkerSettings:
    return WorkerSettings(database_url=SecretStr("d"), broker_url=SecretStr("b"), home=Path("/home"))


def recipe(processes: int) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", "resources": {"gpus": processes}})


def test_torchrun_starts_the_ranks_that_the_recipe_asks_for(settings: WorkerSettings) -> None:
    command = trainer_command(settings, recipe(4), RUN, None)
    assert "--nproc-per-node=4" in command
    assert "--standalone" in command
    assert command[-5:] == ["-m", "trainer", str(RUN), "--cache", "/home/cache"]


def test_an_attempt_is_told_where_to_go_on(settings: WorkerSettings) -> None:
    assert trainer_command(settings, recipe(1), RUN, Path("/state"))[-2:] == ["--resume", "/state"]


def test_an_operator_may_name_another_launcher(settings: WorkerSettings) -> None:
    other = settings.model_copy(update={"trainer": ["numactl", "-N0", "trainer"]})
    given = ["numactl", "-N0", "trainer"]
    assert trainer_command(other, recipe(1), RUN, None) == [*given, str(RUN), "--cache", "/home/cache"]


def test_the_launchers_of_several_machines_meet_at_one_place() -> None:
    command = torchrun(4, Rendezvous(nodes=2, endpoint="10.0.0.1:29500", id="job_1"))
    assert command[3:] == [
        "--nnodes=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=10.0.0.1:29500",
        "--rdzv-id=job_1",
        "--nproc-per-node=4",
        "-m",
        "trainer",
    ]
