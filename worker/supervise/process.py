"""Child processes under a guard: a command in, an exit code out. The guard stops them and leaves no process behind.

Its environment is chosen, not inherited: the service's secrets do not reach the code that loads a user's model.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from worker.supervise.guard import KILL_NOW

GUARD = Path(__file__).with_name("guard.py")

WORKER_MARK = "FINETUNED_WORKER"
RUN_MARK = "FINETUNED_RUN"
"""Every process of a trainer has both in its environment: the name of its worker, and its run folder."""

_PASSED_ON = {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"}
_TO_REACH_A_HUB = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
_PASSED_ON_PREFIXES = (
    *("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "TORCH", "PYTORCH_", "TRITON_"),
    *("VLLM_", "FLASHINFER_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
)


@dataclass(frozen=True)
class Workspace:
    """Where a process under a guard runs, and what it leaves."""

    folder: Path
    log: Path
    """Its output is appended here."""
    exit_report: Path
    """The guard writes it once no process is left."""


class GuardedProcess:
    """A process under a guard: once it has exited, so has every process that it started."""

    def __init__(self, guard: "subprocess.Popen[bytes]") -> None:
        self._guard = guard

    def poll(self) -> int | None:
        return self._guard.poll()

    def wait(self) -> int:
        return self._guard.wait()

    def stop(self) -> None:
        """Lets it save and exit, and kills whatever is left when the grace is over."""
        self._guard.terminate()

    def kill(self) -> None:
        """Kills it at once."""
        self._guard.send_signal(KILL_NOW)


def marks(worker: str, run: Path) -> dict[str, str]:
    """The variables by which a trainer's processes are found."""
    return {WORKER_MARK: worker, RUN_MARK: str(run)}


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the worker's environment that a trainer may see."""
    return {name: value for name, value in environment.items() if _passed_on(name)} | {"PYTHONUNBUFFERED": "1"}


def _passed_on(name: str) -> bool:
    return name in _PASSED_ON or name.upper() in _TO_REACH_A_HUB or name.startswith(_PASSED_ON_PREFIXES)


def start(
    command: Sequence[str], workspace: Workspace, grace: timedelta, environment: Mapping[str, str]
) -> GuardedProcess:
    """Starts `command` under a guard. `environment` is added to what the worker passes on.

    Call it from a thread that lives as long as the job: the guard stops when the thread that started it ends.
    """
    guard = [sys.executable, "-S", "-E", str(GUARD), str(grace.total_seconds()), str(workspace.exit_report)]
    with workspace.log.open("ab") as output:
        return GuardedProcess(
            subprocess.Popen(
                [*guard, *command],
                cwd=workspace.folder,
                env={**trainer_environment(os.environ), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
