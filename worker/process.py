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

_PASSED_ON = {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"}
_TO_REACH_A_HUB = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
_PASSED_ON_PREFIXES = (
    *("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "TORCH", "PYTORCH_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"),
)


def trainer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if _passed_on(name)} | {"PYTHONUNBUFFERED": "1"}


def _passed_on(name: str) -> bool:
    return name in _PASSED_ON or name.upper() in _TO_REACH_A_HUB or name.startswith(_PASSED_ON_PREFIXES)


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
