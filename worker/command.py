"""The command that trains a run folder. Pure. Every path in it is absolute: it works in any folder, by hand too."""

import sys
from dataclasses import dataclass
from pathlib import Path

from contract.recipe import Recipe
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Rendezvous:
    """Where the launchers of one run on several machines meet."""

    nodes: int
    endpoint: str
    """HOST:PORT of one of the machines, the same for all."""
    id: str
    """The same for all, and no other run's."""


def trainer_command(settings: WorkerSettings, recipe: Recipe, run_dir: Path, resume: Path | None) -> list[str]:
    launcher = settings.trainer or torchrun(recipe.resources.gpus)
    cache = ["--cache", str(settings.cache)]
    return [*launcher, str(run_dir), *cache, *(["--resume", str(resume)] if resume else [])]


def torchrun(processes: int, rendezvous: Rendezvous | None = None) -> list[str]:
    """Starts the trainer as so many ranks on this machine, which find each other by a free port, or those of the other
    machines by the rendezvous."""
    meeting = ["--standalone"]
    if rendezvous is not None:
        meeting = [
            f"--nnodes={rendezvous.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={rendezvous.endpoint}",
            f"--rdzv-id={rendezvous.id}",
        ]
    return [sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc-per-node={processes}", "-m", "trainer"]
