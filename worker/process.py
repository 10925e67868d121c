"""A trainer as a child process: a command in, an exit code out. The guard stops it and sees that nothing is left.

Its environment is chosen, not inherited: the service's secrets do not reach the code that loads a user's model.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")

_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "TORCH", "PYTORCH_", "OPENBLAS_", "MKL_")


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in environment.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    } | {"PYTHONUNBUFFERED": "1"}


def start(command: Sequence[str], folder: Path, log: Path, grace: timedelta) -> subprocess.Popen[bytes]:
    """Starts `command` under a guard, in `folder`, its output appended to `log`.

    SIGTERM to the process asks for an orderly end; when it has ended, so has every process it started. Call it from a
    thread that lives as long as the job: the guard is told of the death of the thread that started it.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), str(grace.total_seconds()), *command],
            cwd=folder,
            env=trainer_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
