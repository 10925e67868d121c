from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.recipe import Recipe
from worker.launchers.command import trainer_command
from worker.launchers.torchrun import Rendezvous, launcher
from worker.settings import WorkerSettings

RUN = Path("/runs/job/attempt-2")


@pytest.fixture
def settings() -> WorkerSettings:
    return WorkerSettings(database_url=SecretStr("d"), broker_url=SecretStr("b"), home=Path("/home"))


def recipe(processes: int) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", "resources": {"gpus": processes}})


def test_torchrun_starts_the_requested_ranks(settings: WorkerSettings) -> None:
    command = trainer_command(settings, recipe(4), RUN, None)
    assert "--nproc-per-node=4" in command
    assert "--standalone" in command
    assert command[-5:] == ["-m", "trainer", str(RUN), "--cache", "/home/cache"]


def test_rank_that_is_alone_needs_no_torchrun(settings: WorkerSettings) -> None:
    assert trainer_command(settings, recipe(1), RUN, None)[1:3] == ["-m", "trainer"]


def test_attempt_is_told_where_to_go_on(settings: WorkerSettings) -> None:
    assert trainer_command(settings, recipe(1), RUN, Path("/state"))[-2:] == ["--resume", "/state"]


def test_operator_may_name_another_launcher(settings: WorkerSettings) -> None:
    other = settings.model_copy(update={"trainer": ["numactl", "-N0", "trainer"]})
    given = ["numactl", "-N0", "trainer"]
    assert trainer_command(other, recipe(1), RUN, None) == [*given, str(RUN), "--cache", "/home/cache"]


def test_launchers_of_several_machines_meet_at_the_head(settings: WorkerSettings) -> None:
    head = Rendezvous(nodes=2, endpoint="10.0.0.1:29500", id="job_1-1", address="10.0.0.1", head=True)
    command = trainer_command(settings, recipe(4), RUN, None, head)
    assert command[3:12] == [
        "--nnodes=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=10.0.0.1:29500",
        "--rdzv-id=job_1-1",
        "--rdzv-conf=is_host=true,join_timeout=300",
        "--local-addr=10.0.0.1",
        "--nproc-per-node=4",
        "-m",
        "trainer",
    ]
    other = launcher(4, replace(head, address="10.0.0.2", head=False))
    assert set(other) - set(command) == {"--rdzv-conf=is_host=false,join_timeout=300", "--local-addr=10.0.0.2"}


def test_another_launcher_is_told_of_no_rendezvous(settings: WorkerSettings) -> None:
    other = settings.model_copy(update={"trainer": ["trainer"]})
    meeting = Rendezvous(nodes=2, endpoint="10.0.0.1:29500", id="job_1-1", address="10.0.0.1", head=True)
    assert trainer_command(other, recipe(4), RUN, None, meeting) == ["trainer", str(RUN), "--cache", "/home/cache"]
