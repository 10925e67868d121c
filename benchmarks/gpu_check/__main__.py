"""Checks every claim that needs a GPU, and prints one table: `python -m benchmarks.gpu_check --help`.

Each step has a limit, and one that fails does not stop the others; the exit status is 1 if any failed. It needs the
project's packages in the Python that runs it, and TRL with Liger in the same one or through pip, and nothing else of a
network. With --short it runs on a CPU, on tiny models.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from benchmarks.gpu_check.report import HEADER, Outcome, problem_of, rows, verdicts
from benchmarks.gpu_check.steps import Step, rehearsal, steps
from benchmarks.trainer.flops import peak_of
from benchmarks.trainer.measure import watch
from benchmarks.trainer.run import Run
from benchmarks.trainer.table import markdown
from benchmarks.trainer.work import ROOT
from tests.support.files import write_tokenizer
from trainer.device import describe, this_device

_PACKAGES = ("torch", "triton", "transformers", "peft", "liger-kernel", "trl", "bitsandbytes", "deepspeed")
_LEAST_SECONDS = 5.0


def main() -> None:
    options = read_options()
    out: Path = options.out.resolve()
    out.mkdir(parents=True)
    if options.short:
        write_tokenizer(out / "tokenizer")
        planned = rehearsal(out, out / "tokenizer")
    else:
        planned = steps(out, options.tokenizer, options.examples)
    outcomes: list[Outcome] = []
    for outcome in run_all(planned, out, options.minutes * 60):
        outcomes.append(outcome)
        text = report(outcomes)
        (out / "table.md").write_text(text)
    print(f"\n{text}\n{out / 'table.md'}")
    sys.exit(any(outcome.problem is not None for outcome in outcomes))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="a new folder (%(default)s)")
    parser.add_argument("--minutes", type=float, help="for all steps together; 8, and with --short 60")
    parser.add_argument("--examples", type=Path, help="prompts with answers, in any format; our own, where not given")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer; the demo model's, where not given")
    parser.add_argument("--short", action="store_true", help="rehearse on a CPU, with tiny models")
    options = parser.parse_args()
    options.minutes = options.minutes or (60 if options.short else 8)
    if options.out.exists():
        parser.error(f"--out: {options.out} is there; give a new folder")
    if not options.short and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use; --short rehearses without one")
    return options


def run_all(planned: Iterable[Step], out: Path, seconds: float) -> Iterator[Outcome]:
    deadline = time.monotonic() + seconds
    for step in planned:
        left = deadline - time.monotonic()
        if left < _LEAST_SECONDS:
            yield Outcome(step.name, 0.0, "no time was left for it", "", [])
            continue
        print(f"{step.name} ...", file=sys.stderr, flush=True)
        yield run(dataclasses.replace(step, limit=min(step.limit, left)), out)


def run(step: Step, out: Path) -> Outcome:
    log = out / f"{step.name}.log"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    watched = watch(step.command, ROOT, log, environment, step.limit)
    runs = None if step.runs is None else list(read_runs(step.runs))
    problem = problem_of(watched.returncode, watched.seconds, step.limit, runs)
    lines = log.read_text(errors="replace").strip().splitlines()
    if problem is not None:
        print("\n".join([f"{step.name}: {problem}; the end of {log}:", *lines[-15:]]), file=sys.stderr, flush=True)
    summary = lines[-1].strip("= ") if lines and runs is None else ""
    return Outcome(step.name, watched.seconds, problem, summary, runs or [])


def read_runs(folder: Path) -> Iterator[Run]:
    for file in sorted(folder.glob("*/runs.jsonl")):
        for line in file.read_text().splitlines():
            yield Run(**json.loads(line))


def report(outcomes: list[Outcome]) -> str:
    device = this_device()
    versions = ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    cuda = "" if torch.version.cuda is None else f", CUDA {torch.version.cuda}"
    today = datetime.datetime.now(datetime.UTC).date()
    peak = peak_of(describe(device)) if device.type == "cuda" else None
    head = f"{today}: {describe(device)}{cuda}; {versions}"
    return "\n".join([head, "", markdown(HEADER, list(rows(outcomes, peak))), "", *verdicts(outcomes), ""])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
