"""What the first process of a job does alike on each node of any cluster: starts the ranks there, and sees the signs of
the worker that follows the attempt."""

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from worker.launchers.torchrun import Rendezvous, launcher

ALIVE = "worker_alive"
"""The process that follows the attempt touches this file of the run folder."""
STOP = "stop"
"""In the run folder: a sign of the worker, beside what it asks of the cluster's engine."""
TAKEN = 76
"""The exit code of a start whose attempt another start has, that nobody follows, or that does not see its folder."""


def node_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--silence", type=float, required=True, help="seconds without a sign of the worker")
    parser.add_argument("--grace", type=float, required=True, help="seconds to save")
    parser.add_argument("--trainer", type=json.loads, help="the command that trains, instead of the built-in trainer")
    parser.add_argument("arguments", nargs="+")
    return parser


def start_ranks(
    given: argparse.Namespace, node: int, rendezvous: Rendezvous | None, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """In the run folder, which is this process's. Each node has a log of its own."""
    command = [*(given.trainer or launcher(given.processes, rendezvous)), *given.arguments]
    with Path(f"trainer-{node}.log" if node else "trainer.log").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})


def touched_at(file: Path) -> float:
    """When a file of the shared folder was touched last; 0 where there is none."""
    try:
        with file.open("rb") as opened:  # NFS asks its server then, whatever it has cached
            return os.fstat(opened.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0
