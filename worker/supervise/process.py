"""A trainer as a child process: a command in, an exit code out. The guard stops it and sees that nothing is left.

Its environment is chosen, not inherited: the service's secrets do not reach the code that loads a user's model.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from worker.supervise.guard import KILL_NOW

GUARD = Path(__file__).with_name("guard.py")

WORKER_MARK = "FINETUNED_WORKER"
RUN_MARK = "FINETUNED_RUN"
"""Every process of a trainer has both in its environment: its worker's name, and its run folder."""

_PASSED_ON = {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"}
_TO_REACH_A_HUB = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
_PASSED_ON_PREFIXES = (
    *("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "TORCH", "PYTORCH_", "TRITON_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
)


class Trainer:
    """Under a guard: when it has ended, so has every process it started."""

    def __init__(self, guard: "subprocess.Popen[bytes]") -> None:
        self._guard = guard

    def poll(self) -> int | None:
        return self._guard.poll()

    def wait(self) -> int:
        return self._guard.wait()

    def stop(self) -> None:
        """Asks for an orderly end, and kills what is left when the grace is over."""
        self._guard.terminate()

    def kill(self) -> None:
        """Ends it without grace."""
        self._guard.send_signal(KILL_NOW)


def marks(worker: str, run: Path) -> dict[str, str]:
    return {WORKER_MARK: worker, RUN_MARK: str(run)}


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if _passed_on(name)} | {"PYTHONUNBUFFERED": "1"}


def _passed_on(name: str) -> bool:
    return name in _PASSED_ON or name.upper() in _TO_REACH_A_HUB or name.startswith(_PASSED_ON_PREFIXES)


def start(
    command: Sequence[str], folder: Path, log: Path, grace: timedelta, environment: Mapping[str, str], exit_report: Path
) -> Trainer:
    """Starts `command` under a guard, in `folder`, its output appended to `log`, with `environment` besides what it is
    passed on.

    Call it from a thread that lives as long as the job: the guard is told of the death of the thread that started it.
    """
    guard = [sys.executable, "-S", "-E", str(GUARD), str(grace.total_seconds()), str(exit_report)]
    with log.open("ab") as output:
        return Trainer(
            subprocess.Popen(
                [*guard, *command],
                cwd=folder,
                env={**trainer_environment(os.environ), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
