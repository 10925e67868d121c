"""Starts the trainer of an attempt, or of this machine's part of it."""

from pathlib import Path

from contract.recipe import Recipe
from store.jobs import jobs
from worker.attempt.context import Attempt
from worker.launchers.launcher import Launcher, Trainer, TrainerRun
from worker.launchers.local import LocalLauncher, state_of
from worker.launchers.profiles import KubernetesProfile
from worker.launchers.slurm import SlurmLauncher


def launch(attempt: Attempt, recipe: Recipe, state: Path | None) -> Trainer:
    """Starts the trainer on the attempt's only machine, or on its head node. The job keeps the command.

    Raises StaleAttempt.
    """
    part, lease = attempt.part, attempt.settings.lease
    prepared = _launcher(attempt, recipe).prepare(TrainerRun(part.job_id, part.attempt, recipe, attempt.run_dir, state))
    its = (prepared.printed, lease, prepared.endpoint)
    attempt.transact(lambda session: jobs.launch(session, part.job_id, part.attempt, *its))
    return prepared.start()


def launch_part(attempt: Attempt, endpoint: str, head_command: str) -> Trainer:
    """Starts this machine's ranks, which meet the head node's at `endpoint` and resume from the same state."""
    part, run_dir = attempt.part, attempt.run_dir
    recipe = Recipe.model_validate_json(run_dir.recipe.read_bytes())
    run = TrainerRun(part.job_id, part.attempt, recipe, run_dir, state_of(head_command))
    return _local(attempt).start_part(run, part.rank, endpoint)


def _launcher(attempt: Attempt, recipe: Recipe) -> Launcher:
    if recipe.resources.profile is None:
        return _local(attempt)
    settings, profile = attempt.settings, attempt.settings.profiles[recipe.resources.profile]
    if isinstance(profile, KubernetesProfile):
        # The client of Kubernetes takes half a second to import.
        from worker.launchers.kubernetes import KubernetesLauncher

        return KubernetesLauncher(settings, profile)
    return SlurmLauncher(settings, profile)


def _local(attempt: Attempt) -> LocalLauncher:
    return LocalLauncher(attempt.settings, attempt.machine, attempt.part.devices)
