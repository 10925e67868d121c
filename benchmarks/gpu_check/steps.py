"""What is run, in the order of its worth, since the minutes may not suffice for all."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED = ["ours", "fp8", "trl-liger"]
_ALONE = ["ours"]
_TEST_PROCESSES = 6
_REHEARSED = 1200.0
"""Seconds of a step on a CPU, which may be a busy one."""


@dataclass(frozen=True)
class Step:
    name: str
    command: list[str]
    limit: float
    """Seconds after which its processes are killed."""
    runs: Path | None = None
    """The folder in which a comparison of trainers leaves its runs."""


def steps(out: Path, tokenizer: Path | None, examples: Path | None) -> Iterator[Step]:
    """With 8B and mixtures of experts, for a GPU of 80 GB or more."""
    shared = ["--learning-rate", "1e-4"] + ([] if tokenizer is None else ["--tokenizer", str(tokenizer)])
    full = ["--length", "4096", "--documents", "128", "--micro-batch", "1", "--steps", "3", *shared]
    given = [] if examples is None else ["--examples", str(examples)]
    half = ["--documents", "64", "--micro-batch", "16", "--steps", "3", *shared, *given]
    arms = [*_COMPARED, "checkpointed", "compiled"]
    yield _trainers("8B, full length", out, "llama-3-8b", "full-length", [*full, "--no-evaluation"], arms, 190)
    yield _trainers("8B, half padding", out, "llama-3-8b", "half-padded", half, _COMPARED, 100)
    at_once = ["-n", str(_TEST_PROCESSES)] if importlib.util.find_spec("xdist") is not None else []
    yield _tests(100, "-m", "gpu", *at_once)
    for model in ("qwen3-moe", "gpt-oss"):
        yield _trainers(model, out, model, "full-length", [*full, "--no-evaluation"], _ALONE, 45)


def rehearsal(out: Path, tokenizer: Path) -> Iterator[Step]:
    """The same with tiny models, on a CPU. Left out are TRL, and torch_compile, which compiles for a minute. Tests are
    only collected: those that need a GPU are left out without one, after their files are read."""
    small = ["--length", "64", "--documents", "4", "--micro-batch", "2", "--steps", "2", "--tokenizer", str(tokenizer)]
    arms = ["ours", "checkpointed"]
    yield _trainers("8B, full length", out, "tiny-llama", "full-length", [*small, "--no-evaluation"], arms, _REHEARSED)
    yield _trainers("8B, half padding", out, "tiny-llama", "half-padded", small, ["ours", "fp8"], _REHEARSED)
    yield _tests(_REHEARSED, "--collect-only")
    for model in ("qwen3-moe", "gpt-oss"):
        yield _trainers(model, out, f"tiny-{model}", "full-length", [*small, "--no-evaluation"], _ALONE, _REHEARSED)


def _trainers(name: str, out: Path, model: str, regime: str, options: list[str], arms: list[str], limit: float) -> Step:
    folder = out / name.replace(", ", "-").replace(" ", "-")
    command = [sys.executable, "-m", "benchmarks.trainer", "--out", str(folder), "--model", model, "--regimes", regime]
    once = ["--rounds", "1", "--warmup", "1", "--limit", str(limit)]
    return Step(name, [*command, *once, *options, "--arms", *arms], limit, folder / "runs")


def _tests(limit: float, *options: str) -> Step:
    return Step("tests that need a GPU", [sys.executable, "-m", "pytest", "-q", "tests/trainer", *options], limit)
