"""Trains on a Slurm cluster: one Slurm job for each attempt, which this process submits, watches and ends.

The jobs of an attempt are found by their comment, JOB/ATTEMPT, and not by their id: so a lost reply of sbatch submits
nothing twice. The run folder is on a file system that the nodes share.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from contract.run_dir import RunDir
from worker.launchers import slurm_commands as slurm
from worker.launchers.cluster_node import STOP
from worker.launchers.cluster_trainer import ClusterRefused, ClusterTrainer, read_stripped
from worker.launchers.command import trainer_arguments
from worker.launchers.launcher import Prepared, TrainerRun
from worker.launchers.profiles import SlurmProfile
from worker.launchers.slurm_commands import SlurmJob, SlurmMissing, SlurmRefused
from worker.launchers.slurm_ending import WARNING, Left, ending, may_run, not_begun_on
from worker.launchers.slurm_node import LONGEST_STOP, STOPPED
from worker.settings import WorkerSettings
from worker.supervise import process

log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("slurm_job.sh")
CLAIM, EXIT = "slurm_job", "slurm_exit"
"""Files of the run folder: the id of the Slurm job that has the attempt, and its script's exit code."""
FAULTY_NODE = "slurm_faulty_node"
"""The node on which its script could not begin."""

_NOT_PASSED_ON = {"CUDA_VISIBLE_DEVICES"}
"""Slurm sets it on each node."""


@dataclass(frozen=True)
class SlurmLauncher:
    settings: WorkerSettings
    profile: SlurmProfile

    def prepare(self, run: TrainerRun) -> Prepared:
        settings, folder = self.settings, run.folder
        environment = job_environment()
        comment = f"{run.job_id}/{run.attempt}"
        command = ["sbatch", *self._options(run, comment), f"--export={','.join(sorted(environment))}"]
        silence = str(math.ceil(settings.cut_off.total_seconds()))
        command += [*self.profile.options, *self._exclude(run.folder), str(SCRIPT), silence, *self._node_command(run)]
        # The marks are for sbatch alone: a worker that finds one whose follower is gone ends it.
        environment |= process.marks(settings.worker, folder.path)
        environment |= slurm_conf()
        order = SlurmOrder(settings.worker, comment, folder, command, environment, settings.grace, run.state)
        return Prepared(command, None, partial(SlurmTrainer, order))

    def _options(self, run: TrainerRun, comment: str) -> list[str]:
        profile, resources = self.profile, run.recipe.resources
        given = {
            "partition": profile.partition,
            "account": profile.account,
            "time": profile.time_limit,
            "gres": f"{profile.gres}:{resources.gpus}" if profile.gres else None,
            "cpus-per-task": None if profile.gres else resources.gpus,
        }
        return [
            "--parsable",
            # Our attempts are the retries: docs/decisions/0011-slurm.md.
            "--no-requeue",
            # To the steps and not to the script (B:), as preemption and scancel send it.
            f"--signal=TERM@{WARNING}",
            "--open-mode=append",
            f"--job-name={slurm.job_name(self.settings.worker)}",
            f"--comment={comment}",
            f"--chdir={run.folder.path}",
            f"--output={run.folder.log}",
            f"--nodes={resources.nodes}",
            "--ntasks-per-node=1",
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
        ]

    def _exclude(self, folder: RunDir) -> list[str]:
        """Not again the node on which the attempt before could not begin. Slurm may take it for the freest one."""
        attempt = int(folder.path.name.removeprefix("attempt-"))
        faulty = read_stripped(folder.path.with_name(f"attempt-{attempt - 1}") / FAULTY_NODE)
        # A later option replaces the profile's own.
        own = [option.removeprefix("--exclude=") for option in self.profile.options if option.startswith("--exclude=")]
        return [f"--exclude={','.join([*own[-1:], faulty])}"] if faulty else []

    def _node_command(self, run: TrainerRun) -> list[str]:
        settings, resources = self.settings, run.recipe.resources
        python = [sys.executable]
        if self.profile.image:
            python = ["apptainer", "exec", "--nv", f"--bind={settings.home}", self.profile.image, "python3"]
        return [
            *(*python, "-P", "-m", "worker.launchers.slurm_node"),
            *("--processes", str(resources.gpus), "--nodes", str(resources.nodes), "--id", run.name),
            *("--silence", str(settings.cut_off.total_seconds()), "--grace", str(settings.grace.total_seconds())),
            *(["--trainer", json.dumps(settings.trainer)] if settings.trainer else []),
            *("--", *trainer_arguments(settings, run.folder.path, run.state)),
        ]


@dataclass(frozen=True)
class SlurmOrder:
    """What is submitted for an attempt."""

    worker: str
    comment: str
    folder: RunDir
    command: Sequence[str]
    environment: dict[str, str]
    grace: timedelta
    state: Path | None = None
    """The training checkpoint that it resumes from."""


class SlurmTrainer(ClusterTrainer):
    """A trainer in a Slurm job."""

    def __init__(self, order: SlurmOrder) -> None:
        super().__init__(order.comment, order.folder, order.state, CLAIM, EXIT)
        self._order = order
        self._id = ""
        """Of the attempt's Slurm job, once it is known."""
        self._term_at: float | None = None
        self._forgotten_at: float | None = None
        self._thread.start()

    def _refused(self, error: ClusterRefused) -> None:
        if isinstance(error, SlurmMissing) and not self._id:
            self._give_up(str(error))

    def _look(self) -> None:
        found = self._find()
        live = [job for job in found if not job.has_ended]
        if live:
            self._note(live[0])
            self._carry_out(live)
        elif self._id:
            self._end()
        elif self._is_to_end:
            self._end_before_submission()
        else:
            self._submit()

    def _find(self) -> list[SlurmJob]:
        """The attempt's jobs in Slurm, oldest first. One that Slurm does not list, and that we know of, is looked up by
        its id."""
        found = [job for job in slurm.list_jobs(self._order.worker) if job.comment == self._order.comment]
        self._id = read_stripped(self._claim_file) or self._id or (found[0].id if found else "")
        if not found and self._id and (details := self._details()):
            return [slurm.as_job(details)]
        return found

    def _details(self) -> dict[str, str]:
        """Empty where Slurm has forgotten the job, and where it has given its id to another one since: a controller
        that was killed counts from the last one that it had written down."""
        details = slurm.details(self._id)
        return details if details.get("Comment") == self._order.comment else {}

    def _submit(self) -> None:
        try:
            self._id = slurm.submit(self._order.command, self._order.environment)
        except SlurmRefused as error:
            self._give_up(f"Slurm refused the job: {error}")
        self._wake.set()

    def _note(self, job: SlurmJob) -> None:
        # One that has begun and yet is pending runs: its controller has forgotten it.
        if job.is_pending and not self._claim_file.exists():
            self._note_queue(job.reason, lambda: slurm.position(job), job.start)
        else:
            self._wait = None

    def _carry_out(self, live: Sequence[SlurmJob]) -> None:
        """Carries out a request to stop, and ends jobs that were submitted twice: the first has the attempt."""
        pending = [job.id for job in live if job.is_pending]
        running = [job.id for job in live if not job.is_pending]
        if not self._is_to_end:
            slurm.cancel([job.id for job in live[1:] if job.is_pending])
            return
        slurm.cancel(pending)
        if self._kill:
            slurm.send_kill(running)
            slurm.cancel(running)
        elif running and self._term_at is None:
            # Before the call: a second SIGTERM would end a trainer that saves.
            self._term_at = time.monotonic()
            slurm.send_term([] if self._file(STOPPED).exists() else running)
        elif self._term_at is not None and time.monotonic() - self._term_at > self._order.grace.total_seconds():
            slurm.cancel(running)

    def _end(self) -> None:
        left = self._left()
        details = self._details()
        if may_run(details, left) and not self._waited_for_nodes():
            return
        if (node := not_begun_on(details, left)) is not None:
            self._remember_faulty(node)
        self._ended = ending(details, left, stop_requested=self._is_to_end)
        log.info("%s: Slurm job %s ended: %s", self._order.comment, self._id, details.get("JobState", "unknown"))

    def _remember_faulty(self, node: str) -> None:
        try:
            self._file(FAULTY_NODE).write_text(node)
        except OSError as error:
            log.warning("%s: the next attempt may get node %s again: %s", self._order.comment, node, error)

    def _left(self) -> Left:
        return Left(
            exit_code=self._exit_code(),
            was_stopped=self._file(STOPPED).exists(),
            saved=self._has_saved(),
            told_to_stop=self._file(STOP).exists(),
            claimed_at=_touched(self._claim_file),
        )

    def _waited_for_nodes(self) -> bool:
        """Whether the nodes have had time to see the sign to stop: nobody else ends a job that Slurm has forgotten."""
        self._file(STOP).touch()
        self._forgotten_at = self._forgotten_at or time.monotonic()
        return time.monotonic() - self._forgotten_at > self._order.grace.total_seconds() + LONGEST_STOP


def job_environment() -> dict[str, str]:
    """What a job's processes see of this one's environment."""
    passed_on = process.trainer_environment(os.environ).items()
    return {name: value for name, value in passed_on if name not in _NOT_PASSED_ON}


def slurm_conf() -> dict[str, str]:
    """Where a command that gets a chosen environment finds Slurm."""
    return {"SLURM_CONF": config} if (config := os.environ.get("SLURM_CONF")) else {}


def _touched(file: Path) -> float | None:
    with suppress(FileNotFoundError):
        return file.stat().st_mtime
    return None
