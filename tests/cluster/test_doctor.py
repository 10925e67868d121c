"""What the doctor finds on a real cluster."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.slurm import SlurmCluster
from worker import doctor
from worker.launchers.profiles import Profile, SlurmProfile
from worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def in_reach(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])


def look(home: Path, **keys: str | list[str]) -> str:
    profiles: dict[str, Profile] = {"a": SlurmProfile.model_validate({"launcher": "slurm", **keys})}
    settings = WorkerSettings(database_url=SecretStr("d"), broker_url=SecretStr("b"), home=home, profiles=profiles)
    return doctor.check_slurm(settings)


def test_profile_that_works_is_tried_on_a_node(tmp_path: Path) -> None:
    assert look(tmp_path, partition="high").endswith("; profile a: a node uses the home folder, and its clock is right")
    assert [*tmp_path.iterdir()] == []


def test_probe_gets_the_options_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/bash\n(echo "$@"; env) > {tmp_path}/seen\nexec /usr/bin/srun "$@"\n')
    srun.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FINETUNED_DATABASE_URL", "a secret")
    home = tmp_path / "a home"
    home.mkdir()
    assert "a node uses the home folder" in look(home, partition="high", options=["--cpus-per-task=2"])
    seen = (tmp_path / "seen").read_text()
    assert "--cpus-per-task=2" in seen
    assert "a secret" not in seen


def say(folder: Path, program: str, does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program before that of this name, here and on the nodes."""
    (folder / program).write_text(f"#!/bin/bash\n{does}\n")
    (folder / program).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(("seconds", "is_at"), [(60, "ahead of"), (-60, "behind")])
def test_clock_of_a_node_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, is_at: str) -> None:
    say(tmp_path, "date", f'exec /usr/bin/date --date="{seconds} seconds" "$@"', monkeypatch)
    with pytest.raises(doctor.CheckFailed, match=rf"profile a: the node's clock is \d+ s {is_at} the worker's: set up"):
        look(tmp_path, partition="high")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("s/(data as of) .*/\\1 1700000000/", r"the controller's clock is \d+ s behind the worker's: set up NTP"),
        ("s/(KillWait +)= .*/\\1= 10 sec/", "KillWait is 10 s, in which a job .* may not save: set 30 or more"),
    ],
)
def test_configuration_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, problem: str) -> None:
    say(tmp_path, "scontrol", f"/usr/bin/scontrol \"$@\" | sed -E '{change}'", monkeypatch)
    with pytest.raises(doctor.CheckFailed, match=problem):
        look(tmp_path, partition="high")


@pytest.mark.exhaustive
def test_busy_cluster_is_no_fault(tmp_path: Path, cluster: SlurmCluster) -> None:
    cluster.fill("high")
    assert "no node is free" in look(tmp_path, partition="high")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"partition": "none"}, "profile a, partition: Slurm has no none"),
        ({"partition": "high", "options": ["--constraint=none"]}, "profile a: srun says: .*[Ii]nvalid feature"),
        ({"partition": "low"}, "partition low is preempted with a GraceTime of 10 s"),
        ({"partition": "high", "image": "/none.sif"}, "profile a, image: /none.sif does not exist here"),
    ],
)
def test_wrong_profile_is_a_fault(tmp_path: Path, keys: dict[str, str | list[str]], problem: str) -> None:
    with pytest.raises(doctor.CheckFailed, match=problem):
        look(tmp_path, **keys)


@pytest.mark.exhaustive
def test_controller_that_is_away_is_a_fault(tmp_path: Path, cluster: SlurmCluster) -> None:
    cluster.kill("slurmctld")
    try:
        with pytest.raises(doctor.CheckFailed, match="controller does not answer"):
            look(tmp_path, partition="high")
    finally:
        cluster.start_controller()
