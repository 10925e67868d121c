import os
import subprocess
import sys


def finetuned(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "finetuned", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)
