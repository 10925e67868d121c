"""Checks a file of examples without a service, by the program that the service itself runs for it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetuned.cli.terminal import fail

_SECONDS = 600.0


def check_here(file: Path, format: str | None, columns: dict[str, str]) -> dict[str, Any]:
    """The report on the rows of `file`. Ends the command where the file cannot be read."""
    if find_spec("finetuned.stack") is None:
        fail(
            "finetuned datasets check: reading datasets is not part of this package, which is the client alone; run it "
            "from a checkout, or let a service check the file with: finetuned datasets add FILE"
        )
    if not file.is_file():
        fail(f"{file} is not a file")
    read = (
        {"path": str(file.absolute())}
        | ({"format": format} if format else {})
        | ({"columns": columns} if columns else {})
    )
    request = {"task": {"kind": "check", "file": read, "max_bytes": None}, "seconds": _SECONDS}
    command = [sys.executable, "-P", "-m", "dataset"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if done.returncode:
        wrong = done.stderr.strip().splitlines()[-3:] or [f"it ended with {done.returncode}"]
        fail(f"cannot check {file}: {' '.join(wrong)}")
    response = json.loads(done.stdout)
    if response["failure"] is not None:
        fail(response["failure"]["message"])
    report: dict[str, Any] = response["answer"]
    return report
