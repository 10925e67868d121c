from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.recipe import Recipe
from worker.command import trainer_command
from worker.settings import WorkerSettings

RUN = Path("/runs/job/attempt-2")


@pytest.fixture
def settings() -> WorkerSettings:
    return WorkerSettings(database_url=SecretStr("d"), broker_url=SecretStr("b"), home=Path("/home"))


def recipe(processes: int) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", "parallel": {"processes": processes}})


def test_torchrun_starts_the_ranks_that_the_recipe_asks_for(settings: WorkerSettings) -> None:
    command = trainer_command(settings, recipe(4), RUN, None)
    assert "--nproc-per-node=4" in command
    assert command[-3:] == ["-m", "trainer", str(RUN)]


def test_an_attempt_is_told_where_to_go_on(settings: WorkerSettings) -> None:
    assert trainer_command(settings, recipe(1), RUN, Path("/state"))[-2:] == ["--resume", "/state"]


def test_an_operator_may_name_another_launcher(settings: WorkerSettings) -> None:
    other = settings.model_copy(update={"trainer": ["numactl", "-N0", "trainer"]})
    assert trainer_command(other, recipe(1), RUN, None) == ["numactl", "-N0", "trainer", str(RUN)]
