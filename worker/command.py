"""The command that trains a run folder. Pure."""

import sys
from pathlib import Path

from contract.recipe import Recipe
from worker.settings import WorkerSettings


def trainer_command(settings: WorkerSettings, recipe: Recipe, run_dir: Path, resume: Path | None) -> list[str]:
    launcher = settings.trainer or torchrun(recipe.parallel.processes)
    return [*launcher, str(run_dir), *(["--resume", str(resume)] if resume else [])]


def torchrun(processes: int) -> list[str]:
    """Starts the trainer as so many ranks on this machine, which find each other by a free port."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "trainer",
    ]
