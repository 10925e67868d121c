"""Slurm's commands, as this worker's user runs them: sbatch, squeue, scontrol and scancel. A command that failed
because no controller answered says nothing about the job; it may have reached one all the same."""

import logging
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.launchers.cluster_trainer import ClusterRefused, ClusterUnreachable

log = logging.getLogger(__name__)

PENDING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("REVOKED", "TIMEOUT"),
    }
)
"""A job that is COMPLETING still has processes."""

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")

LONGEST = 15.0
"""Seconds that a command may take."""
_UNREACHABLE = (
    *("unable to contact", "timed out", "zero bytes", "temporarily", "in standby mode", "connection refused"),
    *("connection reset", "not connected", "communication", "unexpected message", "not establish", "unreachable"),
    *("configuration source", "shutting down", "munge", "protocol authentication"),
)
_OF_AN_OPERATOR = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SLURM_CLUSTERS")
"""Variables that filter or redirect what these commands do."""
_FORMAT = "%i|%T|%S|%P|%Z|%k|%r"


class ControllerUnreachable(ClusterUnreachable):
    """No controller has answered, or not in time."""


class SlurmRefused(ClusterRefused):
    """Slurm's own words."""


class SlurmMissing(SlurmRefused):
    """A program of Slurm's cannot be run here."""


@dataclass(frozen=True)
class SlurmJob:
    id: str
    state: str
    start: float | None
    """When it has started, or is expected to."""
    partition: str
    folder: Path
    comment: str
    reason: str
    """Why it waits, in one of Slurm's words."""

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING

    @property
    def has_ended(self) -> bool:
        """None of its processes is left, on any node."""
        return self.state in ENDED


def job_name(worker: str) -> str:
    return f"finetuned-{worker}"


def list_jobs(worker: str, longest: float = LONGEST) -> list[SlurmJob]:
    """The jobs that this worker has submitted, with those that have ended in the last minutes, oldest first. Raises
    ControllerUnreachable."""
    # --all: those of hidden partitions too.
    command = ["squeue", "--me", "--all", "--states=all", f"--name={job_name(worker)}", "--sort=i", "--noheader"]
    lines = run([*command, f"--format={_FORMAT}"], longest=longest).splitlines()
    return [_job(line.strip()) for line in lines if line.strip()]


def _job(line: str) -> SlurmJob:
    number, state, start, partition, folder, comment, reason = line.split("|", 6)
    return SlurmJob(number, state, _epoch(start), partition, Path(folder), comment, reason)


def as_job(details: Mapping[str, str]) -> SlurmJob:
    """The job that `details` are of."""
    state, start = details["JobState"], _epoch(details.get("StartTime", ""))
    where = details.get("Partition", ""), Path(details.get("WorkDir", ""))
    return SlurmJob(details["JobId"], state, start, *where, details.get("Comment", ""), details.get("Reason", ""))


def position(job: SlurmJob) -> int:
    """Its place among the pending jobs of its partition that this user may see; 1 is the next."""
    command = ["squeue", "--states=PENDING", f"--partition={job.partition}", "--sort=-p,i", "--noheader", "--format=%i"]
    numbers = [line.strip() for line in run(command).splitlines()]
    return numbers.index(job.id) + 1 if job.id in numbers else 1


def submit(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Runs an sbatch command with this environment alone. Returns the job's id. Raises ControllerUnreachable, and then
    the job may have been submitted, and SlurmRefused."""
    return run(command, environment=environment).strip().split(";")[0]


def details(job_id: str) -> dict[str, str]:
    """What `scontrol show job` says; empty where Slurm has forgotten the job. Raises ControllerUnreachable."""
    try:
        words = run(["scontrol", "--all", "show", "job", job_id, "--oneliner"]).split(" ")
    except SlurmMissing:
        raise
    except SlurmRefused:
        return {}
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def send_term(job_ids: Collection[str], longest: float = LONGEST) -> None:
    """To all processes of the jobs' steps."""
    _cancel(["--signal=TERM"], job_ids, longest)


def send_kill(job_ids: Collection[str]) -> None:
    """To all processes of their one step, at once: a whole job gets TERM first, and KILL after Slurm's KillWait."""
    _cancel(["--signal=KILL"], [f"{job_id}.0" for job_id in job_ids])


def cancel(job_ids: Collection[str], longest: float = LONGEST) -> None:
    """Ends them: TERM, Slurm's KillWait, KILL."""
    _cancel([], job_ids, longest)


def _cancel(options: list[str], job_ids: Collection[str], longest: float = LONGEST) -> None:
    if not job_ids:
        return
    try:
        run(["scancel", *options, *job_ids], longest=longest)
    except SlurmMissing:
        raise
    except SlurmRefused as error:
        # That they end already, or have not begun their steps. The next look shows what is left.
        log.info("scancel %s: %s", " ".join(job_ids), error)


def run(command: Sequence[str], *, environment: Mapping[str, str] = os.environ, longest: float = LONGEST) -> str:
    """What a command says. Raises ControllerUnreachable, SlurmRefused and, of the latter, SlurmMissing."""
    given = {name: value for name, value in environment.items() if not name.startswith(_OF_AN_OPERATOR)}
    given["SLURM_TIME_FORMAT"] = "%s"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=longest, env=given
        )
    except subprocess.TimeoutExpired as error:
        raise ControllerUnreachable(f"{command[0]} took longer than {longest:.0f} s") from error
    except OSError as error:
        raise SlurmMissing(f"{command[0]} cannot be run on the worker's machine: {error.strerror}") from error
    if done.returncode == 0:
        return done.stdout
    # scontrol says on stdout that it has not found something.
    said = (done.stderr or done.stdout).strip()
    if not said or any(words in said.lower() for words in _UNREACHABLE):
        raise ControllerUnreachable(said or f"{command[0]} ended with {done.returncode}")
    raise SlurmRefused(said)


def _epoch(given: str) -> float | None:
    return float(given) if given.isdigit() else None
