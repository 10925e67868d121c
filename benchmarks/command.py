"""How long `finetuned --help` takes, beside Python's own start, in one run.

python -m benchmarks.command [--short]
"""

import argparse
import statistics
import subprocess
import sys
import time

PASS, HELP = ["-c", "pass"], ["-m", "finetuned", "--help"]


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.command", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--short", action="store_true", help="a few runs, to see that it works")
    rounds = 3 if parser.parse_args().short else 30
    pairs = [(seconds(PASS), seconds(HELP)) for _ in range(rounds)]
    python, help_ = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"python -c pass: {1000 * python:.0f} ms")
    print(f"finetuned --help: {1000 * help_:.0f} ms, {help_ / python:.1f} times as long")


if __name__ == "__main__":
    main()
