"""What follows a Slurm job, with programs in Slurm's place that say what a test has them say."""

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from contract.failure import FailureCode
from contract.run_dir import RunDir
from tests.support.waiting import until
from worker.launchers import cluster_trainer, slurm
from worker.launchers.cluster_node import ALIVE, STOP
from worker.launchers.launcher import Ended
from worker.launchers.slurm import SlurmOrder, SlurmTrainer
from worker.launchers.slurm_node import STOPPED
from worker.launchers.slurm_orphans import SlurmOrphans
from worker.supervise.orphans import Orphans

_SAYS = """#!/bin/bash
cd {folder}
printf '%s ' "${{0##*/}}" "$@" >> calls; echo >> calls
[[ -e away ]] && {{ echo "Unable to contact slurm controller" >&2; exit 1; }}
[[ -e refused ]] && {{ echo "Invalid user" >&2; exit 1; }}
"""
_PROGRAMS = {
    "squeue": '[[ $* = *%i* && $SQUEUE_PARTITION ]] || echo "$(<listed)"',
    "sbatch": "echo 7",
    "scontrol": '[[ -e details ]] || { echo "Invalid job id specified" >&2; exit 1; }; printf %s "$(<details)"',
    "scancel": ":",
}
DETAILS = "JobId=7 JobState={} StartTime=1796071210 Partition=low WorkDir=/ Comment=job/1 ExitCode={}"
RUNS = DETAILS.format("RUNNING", "0:0")


class FakeSlurm:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.followers: list[SlurmTrainer] = []
        for name, does in _PROGRAMS.items():
            (folder / name).write_text(_SAYS.format(folder=folder) + does)
            (folder / name).chmod(stat.S_IRWXU)
        self.lists()

    def lists(self, *states: str, folder: Path = Path("/")) -> None:
        """What squeue says: one job in each state."""
        lines = [
            f"{7 + place}|{state}|1796071210|low|{folder}|job/1|None\n" for place, state in enumerate(states) if state
        ]
        (self.folder / "listed").write_text("".join(lines))

    def knows(self, details: str) -> None:
        """What scontrol says."""
        (self.folder / "details").write_text(details)

    def end(self) -> None:
        """Lets every follower end."""
        for name in ("away", "refused"):
            (self.folder / name).unlink(missing_ok=True)
        self.lists()
        self.knows(DETAILS.format("COMPLETED", "0:0"))
        for follower in self.followers:
            until(follower.poll)

    def calls(self, program: str) -> list[str]:
        calls = self.folder / "calls"
        return [line for line in calls.read_text().splitlines() if line.split()[0] == program] if calls.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setattr(cluster_trainer, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(cluster_trainer, "_SECONDS_TO_AN_END", 0.1)
    fake = FakeSlurm(tmp_path / "bin")
    yield fake
    fake.end()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def follow(fake: FakeSlurm, run: RunDir, grace: float = 60, state: Path | None = None) -> SlurmTrainer:
    environment = {"PATH": str(fake.folder)}
    trainer = SlurmTrainer(SlurmOrder("login", "job/1", run, ["sbatch"], environment, timedelta(seconds=grace), state))
    fake.followers.append(trainer)
    return trainer


def ended(trainer: SlurmTrainer) -> Ended:
    return until(trainer.poll)


def looks(fake: FakeSlurm, more: int) -> None:
    """Waits until it has looked so often again."""
    before = len(fake.calls("squeue"))
    until(lambda: len(fake.calls("squeue")) >= before + more)


def test_job_that_is_not_listed_is_submitted_once(fake: FakeSlurm, run: RunDir) -> None:
    fake.knows(RUNS)
    trainer = follow(fake, run)
    looks(fake, 4)
    assert (len(fake.calls("sbatch")), trainer.poll()) == (1, None)
    trainer.stop()
    until(lambda: fake.calls("scancel"))
    fake.knows(DETAILS.format("CANCELLED", "0:15"))
    assert ended(trainer).failure is None


def test_variables_of_the_operator_filter_no_jobs(
    fake: FakeSlurm, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "high")
    fake.lists("COMPLETED")
    fake.knows(DETAILS.format("COMPLETED", "0:0"))
    (run.path / slurm.EXIT).write_text("0")
    assert ended(follow(fake, run)).exit_code == 0
    assert fake.calls("sbatch") == []


def test_stop_reaches_the_nodes_without_a_controller(fake: FakeSlurm, run: RunDir) -> None:
    fake.lists("RUNNING")
    trainer = follow(fake, run)
    looks(fake, 1)
    (fake.folder / "away").touch()
    trainer.stop()
    until((run.path / STOP).exists)
    (run.path / ALIVE).unlink()
    looks(fake, 2)
    assert not (run.path / ALIVE).exists()


@pytest.mark.parametrize(("step", "excused"), [(4, False), (5, True)])
def test_time_limit_is_excused_for_a_step_further(fake: FakeSlurm, run: RunDir, step: int, excused: bool) -> None:
    fake.lists("FAILED")
    fake.knows(DETAILS.format("FAILED", "1:0") + " TimeLimit=00:10:00 RunTime=00:09:30")
    (run.path / slurm.EXIT).write_text("1")
    (run.path / STOPPED).touch()
    run.state(step).mkdir(parents=True)
    assert ended(follow(fake, run, state=run.state(4))).excused is excused


def test_orphan_is_told_to_stop_and_signalled_once(fake: FakeSlurm, run: RunDir) -> None:
    fake.lists("RUNNING", "PENDING", folder=run.path)
    orphans = SlurmOrphans(Orphans("login", run.path, timedelta(0)), "login", run.path, timedelta(seconds=50))
    assert orphans.end(0, set) == {run.path}
    assert (run.path / STOP).exists()
    assert fake.calls("scancel") == ["scancel 8 ", "scancel --signal=TERM 7 "]
    orphans.end(10, set)
    assert fake.calls("scancel")[2:] == ["scancel 8 "]
    orphans.end(60, set)
    assert fake.calls("scancel")[3:] == ["scancel 7 8 "]


def test_lost_job_ends_after_its_nodes(fake: FakeSlurm, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "LONGEST_STOP", 0)
    (run.path / slurm.CLAIM).write_text("7\n")
    trainer = follow(fake, run, grace=2)
    until((run.path / STOP).exists)
    looks(fake, 1)
    assert trainer.poll() is None
    failure = ended(trainer).failure
    assert failure is not None
    assert failure.code is FailureCode.NODE_LOST


def test_id_that_was_given_out_again_is_no_job_of_ours(
    fake: FakeSlurm, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LONGEST_STOP", 0)
    (run.path / slurm.CLAIM).write_text("7\n")
    fake.knows(RUNS.replace("job/1", "other/1"))
    failure = ended(follow(fake, run, grace=0)).failure
    assert failure is not None
    assert failure.code is FailureCode.NODE_LOST
    assert fake.calls("scancel") == []


@pytest.mark.parametrize("program", ["squeue", "sbatch"])
def test_missing_program_ends_an_attempt_that_has_not_begun(fake: FakeSlurm, run: RunDir, program: str) -> None:
    (fake.folder / program).unlink()
    failure = ended(follow(fake, run)).failure
    assert failure is not None
    assert failure.code is FailureCode.DEVICES_UNAVAILABLE
    assert f"{program} cannot be run on the worker's machine" in failure.message
    assert (run.path / slurm.CLAIM).exists()


def test_refused_look_ends_no_attempt(fake: FakeSlurm, run: RunDir) -> None:
    fake.lists("RUNNING")
    (fake.folder / "refused").touch()
    trainer = follow(fake, run)
    looks(fake, 2)
    assert (trainer.poll(), fake.calls("sbatch")) == (None, [])


def test_saving_trainer_gets_no_second_sigterm(fake: FakeSlurm, run: RunDir) -> None:
    fake.lists("RUNNING")
    (run.path / STOPPED).touch()
    follow(fake, run, grace=1).stop()
    assert until(lambda: fake.calls("scancel"))[0] == "scancel 7 "


def test_place_in_the_queue_is_read_now_and_then(fake: FakeSlurm, run: RunDir) -> None:
    fake.lists("PENDING")
    trainer = follow(fake, run)
    looks(fake, 4)
    assert sum("--states=PENDING" in call for call in fake.calls("squeue")) == 1
    waits = trainer.waits()
    assert waits is not None
    assert waits.code == "in_cluster_queue"
