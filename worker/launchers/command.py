"""Builds the command that trains a run folder. Every path in it is absolute, so it also works by hand, anywhere."""

from pathlib import Path

from contract.recipe import Recipe
from worker.launchers.torchrun import Rendezvous, launcher
from worker.settings import WorkerSettings


def trainer_command(
    settings: WorkerSettings, recipe: Recipe, run_dir: Path, resume: Path | None, rendezvous: Rendezvous | None = None
) -> list[str]:
    start = settings.trainer or launcher(recipe.resources.gpus, rendezvous)
    return [*start, *trainer_arguments(settings, run_dir, resume)]


def trainer_arguments(settings: WorkerSettings, run_dir: Path, resume: Path | None) -> list[str]:
    return [str(run_dir), "--cache", str(settings.cache), *(["--resume", str(resume)] if resume else [])]
