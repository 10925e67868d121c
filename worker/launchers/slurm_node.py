"""Runs on each node of a Slurm job: starts the ranks there, and ends them when nobody follows the job any more.

    slurm_node --processes P --nodes N --id NAME --silence SECONDS --grace SECONDS [--trainer JSON] -- ARGUMENTS

On SIGTERM Slurm sends it to every process of the job, so it is not passed on: torchrun would end at a second one before
its ranks have saved.
"""

import argparse
import json
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
from worker.launchers.torchrun import Rendezvous, launcher
from worker.supervise.guard import PR_SET_CHILD_SUBREAPER, SECONDS_BETWEEN_KILLS, Descendants, prctl

HEAD = "FINETUNED_HEAD"
"""HOST:PORT where the launchers meet, from slurm_job.sh."""
ALIVE = "worker_alive"
"""The process that follows the attempt touches this file of the run folder."""
STOPPED = "slurm_stopped"
"""Out: SIGTERM came from Slurm."""
STOP = "stop"
"""In: a sign of the worker, beside what it asks of Slurm."""
LONGEST_STOP = 15.0
"""Seconds after that sign in which SIGTERM should have come from Slurm. Then it is sent here."""
_SECONDS_BETWEEN_LOOKS = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="slurm_node")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--silence", type=float, required=True, help="seconds without a sign of the worker")
    parser.add_argument("--grace", type=float, required=True, help="seconds to save")
    parser.add_argument("--trainer", type=json.loads, help="the command that trains, instead of the built-in trainer")
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    folder, node = Path.cwd(), int(os.environ["SLURM_NODEID"])
    signal.signal(signal.SIGTERM, _note_stop)
    rendezvous = _rendezvous(given.nodes, given.id, node) if given.nodes > 1 else None
    environment = network.environment(rendezvous.address, os.environ) if rendezvous else {}
    command = [*(given.trainer or launcher(given.processes, rendezvous)), *given.arguments]
    log = folder / (f"trainer-{node}.log" if node else "trainer.log")
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
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
    seen, heard_at = _touched(folder / ALIVE), time.monotonic()
    asked_at = told_at = math.inf
    while child.poll() is None and time.monotonic() - told_at < grace:
        now = time.monotonic()
        if (touched := _touched(folder / ALIVE)) != seen:
            seen, heard_at = touched, now
        unheeded = (folder / STOP).exists() and not (folder / STOPPED).exists()
        asked_at = min(asked_at, now) if unheeded else math.inf
        if told_at == math.inf and (now - heard_at > silence or now - asked_at > LONGEST_STOP):
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


def _touched(alive: Path) -> float:
    try:
        with alive.open("rb") as file:  # NFS asks its server then, whatever it has cached
            return os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
