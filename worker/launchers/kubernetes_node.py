"""Runs as the only process that a pod starts: claims the attempt, starts the ranks there, and ends them when the
kubelet or the worker wants it, or when nobody follows the job any more. Once it exits, the kernel kills what is left in
its container.

    kubernetes_node --processes P --nodes N --id NAME --endpoint HOST:PORT --silence SECONDS --grace SECONDS
        [--trainer JSON] -- ARGUMENTS
"""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from worker.launchers import network
from worker.launchers.cluster_node import ALIVE, STOP, TAKEN, node_parser, start_ranks, touched_at
from worker.launchers.torchrun import Rendezvous

CLAIM, EXIT, STOPPED = "kubernetes_pod", "kubernetes_exit", "kubernetes_stopped"
"""Files of the run folder: the first pod that has the attempt, its exit code, and that the kubelet sent SIGTERM."""
_SECONDS_BETWEEN_LOOKS = 0.5


def main() -> int:
    parser = node_parser("kubernetes_node")
    parser.add_argument("--endpoint", required=True, help="HOST:PORT of the first pod")
    given = parser.parse_args()
    # The first process of a container ignores a signal that it does not handle.
    signal.signal(signal.SIGTERM, _note_stop)
    folder, node, address = Path.cwd(), int(os.environ["JOB_COMPLETION_INDEX"]), os.environ["POD_IP"]
    if (refusal := _refusal(folder, node, given.silence)) is not None:
        print(f"this pod ends: {refusal}", flush=True)  # noqa: T201 - for kubectl logs
        return TAKEN
    rendezvous = None
    if given.nodes > 1:
        rendezvous = Rendezvous(given.nodes, given.endpoint, given.id, address, head=node == 0)
    environment = network.environment(address, os.environ) if rendezvous else {}
    child = start_ranks(given, node, rendezvous, environment)
    code = _follow(child, folder, given.silence, given.grace)
    if node == 0:
        (folder / EXIT).write_text(str(code))
    return code


def _note_stop(number: int, frame: FrameType | None) -> None:
    Path(STOPPED).touch()


def _refusal(folder: Path, node: int, silence: float) -> str | None:
    """Why this start must not train: Kueue may admit a JobSet again that it has evicted."""
    if (folder / "superseded").exists() or (folder / STOP).exists() or (folder / STOPPED).exists():
        return "this attempt is over"
    if node > 0:
        return None  # it meets nobody where the first pod has ended
    try:
        with (folder / CLAIM).open("x") as claim:
            claim.write(os.environ["POD_UID"])
    except FileExistsError:
        return "another start has this attempt"
    # Both times are the file system's.
    if (folder / CLAIM).stat().st_mtime - touched_at(folder / ALIVE) > silence:
        return f"its worker has given no sign of life for {silence:.0f} s"
    return None


def _follow(child: "subprocess.Popen[bytes]", folder: Path, silence: float, grace: float) -> int:
    """The child's exit code, 128 + n for a signal n. It gets one SIGTERM: torchrun would end at a second one before its
    ranks have saved."""
    seen, heard_at, told_at = touched_at(folder / ALIVE), time.monotonic(), math.inf
    while child.poll() is None:
        now = time.monotonic()
        if (touched := touched_at(folder / ALIVE)) != seen:
            seen, heard_at = touched, now
        wanted = (folder / STOP).exists() or (folder / STOPPED).exists()
        if told_at == math.inf and (wanted or now - heard_at > silence):
            child.terminate()
            told_at = now
        if now - told_at > grace:
            child.kill()
            child.wait()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main())
