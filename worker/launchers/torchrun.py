"""torchrun on one machine or several: the start of a command that runs the trainer as ranks. It needs the standard
library only, since the nodes of a cluster import it for every job."""

import sys
from dataclasses import dataclass

JOIN_SECONDS = 300
"""How long the launchers of all machines may take to meet. None has loaded a model yet."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the launchers of a run on several machines meet, and how this machine takes part."""

    nodes: int
    endpoint: str
    """HOST:PORT of the head node, the same on all machines. The port is free there."""
    id: str
    """The same on all machines, and different for every run."""
    address: str
    """This machine's address, as the others reach it. torchrun gives rank 0 to the first address in string order."""
    head: bool
    """Whether this machine is the head node."""


def launcher(processes: int, rendezvous: Rendezvous | None = None) -> list[str]:
    """The start of a command that runs the trainer as `processes` ranks on this machine.

    torchrun lets the ranks find each other, by a free port or by the rendezvous. A single rank needs none: torchrun
    would load torch for itself, which takes seconds and memory.
    """
    if processes == 1 and rendezvous is None:
        return [sys.executable, "-m", "trainer"]
    meeting = ["--standalone"]
    if rendezvous is not None:
        # By itself torchrun compares host names to find the head node, and gives the others its own host name.
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
