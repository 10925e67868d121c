"""Environments of their own for packages whose pins would conflict with ours."""

import subprocess
import sys
import tempfile
from fcntl import LOCK_EX, flock
from pathlib import Path


def installed(*requirements: str) -> Path:
    """The folder of an environment with these packages, such as "mlflow==3.1"; made once."""
    folder = Path(tempfile.gettempdir()) / f"finetuned-{'-'.join(requirements).replace('==', '-')}"
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not (folder / "complete").exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--clear", str(folder)], check=True)
            subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(folder), *requirements], check=True)
            (folder / "complete").touch()
    return folder
