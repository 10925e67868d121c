"""Starts the trainer of an attempt, or of this machine's part of it."""

import os
import shlex
import socket
from pathlib import Path

from contract.recipe import Recipe
from store.jobs import jobs
from worker.attempt import network
from worker.attempt.command import Rendezvous, trainer_command
from worker.attempt.context import Attempt
from worker.machine import devices
from worker.supervise import process
from worker.supervise.process import GuardedProcess, Workspace


def launch(attempt: Attempt, recipe: Recipe, state: Path | None) -> GuardedProcess:
    """Starts the trainer on the attempt's only machine, or on its head node. The job keeps the command.

    Raises StaleAttempt.
    """
    part, settings, run_dir = attempt.part, attempt.settings, attempt.run_dir
    endpoint = None if recipe.resources.nodes == 1 else f"{settings.address}:{_free_port(settings.address)}"
    rendezvous = make_rendezvous(attempt, recipe, endpoint) if endpoint else None
    command = trainer_command(settings, recipe, run_dir.path, state, rendezvous)
    printed = shlex.join(command)
    attempt.transact(lambda session: jobs.launch(session, part.job_id, part.attempt, printed, settings.lease, endpoint))
    return start(
        attempt, command, Workspace(run_dir.path, run_dir.log, run_dir.exit_report), distributed=bool(endpoint)
    )


def launch_part(attempt: Attempt, endpoint: str, head_command: str) -> GuardedProcess:
    """Starts this machine's ranks, which meet the head node's at `endpoint` and resume from the same state."""
    part, run_dir = attempt.part, attempt.run_dir
    recipe = Recipe.model_validate_json(run_dir.recipe.read_bytes())
    rendezvous = make_rendezvous(attempt, recipe, endpoint)
    command = trainer_command(attempt.settings, recipe, run_dir.path, _state_of(head_command), rendezvous)
    log, exit_report = (run_dir.path / name for name in (f"trainer-{part.rank}.log", f"exit_report-{part.rank}.json"))
    return start(attempt, command, Workspace(run_dir.path, log, exit_report), distributed=True)


def start(attempt: Attempt, command: list[str], workspace: Workspace, distributed: bool) -> GuardedProcess:
    """Starts `command` on the attempt's devices of this machine."""
    settings, numbers = attempt.settings, attempt.part.devices
    environment = process.marks(settings.worker, workspace.folder) | devices.environment(attempt.machine, numbers)
    if distributed:
        environment |= network.environment(settings.address, os.environ)
    return process.start(command, workspace, settings.grace, environment)


def make_rendezvous(attempt: Attempt, recipe: Recipe, endpoint: str) -> Rendezvous:
    """How this machine meets the others of the attempt; the head node hosts the meeting."""
    part = attempt.part
    name = f"{part.job_id}-{part.attempt}"
    return Rendezvous(recipe.resources.nodes, endpoint, name, attempt.settings.address, head=part.rank == 0)


def _state_of(head_command: str) -> Path | None:
    words = shlex.split(head_command)
    return Path(words[words.index("--resume") + 1]) if "--resume" in words else None


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])
