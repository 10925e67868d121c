"""The command that trains a run folder. Pure. Every path in it is absolute: it works in any folder, by hand too."""

import sys
from dataclasses import dataclass
from pathlib import Path

from contract.recipe import Recipe
from worker.settings import WorkerSettings

JOIN_SECONDS = 300
"""For the launchers of all machines to meet. None has loaded a model yet."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the launchers of one run on several machines meet, and how this machine's takes part."""

    nodes: int
    endpoint: str
    """HOST:PORT of the head, the same for all. The port is free there."""
    id: str
    """The same for all, and no other run's."""
    address: str
    """Of this machine, as the others reach it. The one whose address is the first in the order of strings gets rank
    0."""
    head: bool
    """This machine is the endpoint's."""


def trainer_command(
    settings: WorkerSettings, recipe: Recipe, run_dir: Path, resume: Path | None, rendezvous: Rendezvous | None = None
) -> list[str]:
    start = settings.trainer or launcher(recipe.resources.gpus, rendezvous)
    cache = ["--cache", str(settings.cache)]
    return [*start, str(run_dir), *cache, *(["--resume", str(resume)] if resume else [])]


def launcher(processes: int, rendezvous: Rendezvous | None = None) -> list[str]:
    """Starts the trainer as so many ranks on this machine, by torchrun: they find each other by a free port, or those
    of the other machines by the rendezvous. A rank that is alone has nobody to find: torchrun would load torch for
    itself, which takes seconds, and hold it in memory."""
    if processes == 1 and rendezvous is None:
        return [sys.executable, "-m", "trainer"]
    meeting = ["--standalone"]
    if rendezvous is not None:
        # Left to itself torchrun compares host names to find the head, and tells the others its own.
        is_host = str(rendezvous.head).lower()
        meeting = [
            f"--nnodes={rendezvous.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={rendezvous.endpoint}",
            f"--rdzv-id={rendezvous.id}",
            f"--rdzv-conf=is_host={is_host},join_timeout={JOIN_SECONDS}",
            f"--local-addr={rendezvous.address}",
        ]
    return [sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc-per-node={processes}", "-m", "trainer"]
