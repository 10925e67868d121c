"""Runs on each node of a Slurm job: starts the ranks there, and ends them when nobody follows the job any more.

    slurm_node --processes P --nodes N --id NAME --silence SECONDS --grace SECONDS [--trainer JSON] -- ARGUMENTS

On SIGTERM Slurm sends it to every process of the job, so it is not passed on: torchrun would end at a second one before
its ranks have saved.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from worker.launchers import network
from worker.launchers.cluster_node import ALIVE, STOP, node_parser, start_ranks, touched_at
from worker.launchers.torchrun import Rendezvous
from worker.supervise.guard import PR_SET_CHILD_SUBREAPER, SECONDS_BETWEEN_KILLS, Descendants, prctl

HEAD = "FINETUNED_HEAD"
"""HOST:PORT where the launchers meet, from slurm_job.sh."""
STOPPED = "slurm_stopped"
"""Out: SIGTERM came from Slurm."""
LONGEST_STOP = 15.0
"""Seconds after that sign in which SIGTERM should have come from Slurm. Then it is sent here."""
_SECONDS_BETWEEN_LOOKS = 1.0


def main() -> int:
    given = node_parser("slurm_node").parse_args()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    folder, node = Path.cwd(), int(os.environ["SLURM_NODEID"])
    signal.signal(signal.SIGTERM, _note_stop)
    rendezvous = _rendezvous(given.nodes, given.id, node) if given.nodes > 1 else None
    environment = network.environment(rendezvous.address, os.environ) if rendezvous else {}
    child = start_ranks(given, node, rendezvous, environment)
    code = _follow(child, folder, given.silence, given.grace)
    _end_descendants()
    return code


def _note_stop(number: int, frame: FrameType | None) -> None:
    Path(STOPPED).touch()


def _rendezvous(nodes: int, name: str, node: int) -> Rendezvous:
    endpoint = os.environ[HEAD]
    return Rendezvous(nodes, endpoint, name, _own_address(endpoint), head=node == 0)


def _own_address(endpoint: str) -> str:
    """This node's address in the network of the head."""
    host, _, port = endpoint.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing
        return str(probe.getsockname()[0])


def _follow(child: "subprocess.Popen[bytes]", folder: Path, silence: float, grace: float) -> int:
    """The child's exit code, 128 + n for a signal n. Times are this node's: its clock may differ from the worker's."""
    seen, heard_at = touched_at(folder / ALIVE), time.monotonic()
    requested_at = told_at = math.inf
    while child.poll() is None and time.monotonic() - told_at < grace:
        now = time.monotonic()
        if (touched := touched_at(folder / ALIVE)) != seen:
            seen, heard_at = touched, now
        unheeded = (folder / STOP).exists() and not (folder / STOPPED).exists()
        requested_at = min(requested_at, now) if unheeded else math.inf
        if told_at == math.inf and (now - heard_at > silence or now - requested_at > LONGEST_STOP):
            child.terminate()
            told_at = now
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    code = child.poll()
    if code is None:
        return 128 + signal.SIGKILL
    return code if code >= 0 else 128 - code


def _end_descendants() -> None:
    """Kills what the launcher has left. Slurm finds such processes by control groups alone, which not every cluster
    has."""
    seen = Descendants()
    while left := seen.find():
        seen.kill(left)
        seen.reap()
        time.sleep(SECONDS_BETWEEN_KILLS)


if __name__ == "__main__":
    sys.exit(main())
