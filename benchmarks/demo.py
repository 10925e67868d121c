"""Runs the demo in a new home folder and times what a newcomer waits for: `python -m benchmarks.demo`."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finetuned-demo-") as home:
        os.chmod(home, 0o755)
        command = [sys.executable, "-m", "finetuned", "demo", "--exit", "--home", home]
        began = time.monotonic()
        first_metric = None
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                sys.stdout.write(line)
                if first_metric is None and re.match(r"step \d+/", line):
                    first_metric = time.monotonic() - began
        if demo.returncode != 0 or first_metric is None:
            sys.exit("the demo failed")
        print(f"demo to the first metric: {first_metric:.1f} s; the whole demo: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
