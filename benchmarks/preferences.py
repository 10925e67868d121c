"""DPO beside TRL's DPOTrainer, and with and without shared prompts: `python -m benchmarks.preferences`.

A small random llama in fp32 learns from pairs in three epochs of one step each. Each way runs in a process of its own,
in turn with the others. Seconds are those from the loaded model to the end of the last step, with the log probabilities
before training; memory is the most that all processes of a way held at once. The losses must agree.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trainer.arms import ENVIRONMENTS, RIVALS
from benchmarks.trainer.measure import watch
from benchmarks.trainer.pairs import Shape, make_model, write_pairs
from benchmarks.trainer.work import ROOT, threads
from worker.supervise.process import trainer_environment

WAYS = ("ours", "not shared", "trl", "trl tuned")
SHORT_WAYS = ("ours", "not shared")
EPOCHS = 3
LIMIT_SECONDS = 1800
TOLERANCE = 1e-5
RANDOM_TOLERANCE = 2e-2
"""TRL draws other numbers for A. All start at ln 2, since B is zero."""
SHAPES = (
    Shape("half padding", prompts=(200, 40, 80, 40), answers=(160, 30, 70, 40)),
    Shape("prompts four times as long as answers", prompts=(320,), answers=(80,)),
)
SHORT_SHAPES = (Shape("prompts four times as long as answers", prompts=(40,), answers=(10,)),)


@dataclass(frozen=True)
class Outcome:
    seconds: float
    peak_bytes: int
    losses: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preferences", description="DPO beside TRL's.")
    parser.add_argument("--short", action="store_true", help="ours alone, a small model, once")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--pairs", type=int, default=16, help="of a step (%(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="of the model (%(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="(all)")
    parser.add_argument("--apart", nargs=2, metavar=("RUN_DIR", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart:
        train_apart(*options.apart)
        return
    ways = SHORT_WAYS if options.short else options.ways
    if not set(ways) <= set(SHORT_WAYS):
        subprocess.run([RIVALS / "setup", "trl"], check=True)
    with tempfile.TemporaryDirectory(prefix="finetuned-preferences-") as scratch:
        model = make_model(Path(scratch) / "model", small=options.short, layers=2 if options.short else options.layers)
        for shape in SHORT_SHAPES if options.short else SHAPES:
            rows = write_pairs(Path(scratch) / f"{shape.name}.jsonl", shape, 8 if options.short else options.pairs)
            rounds = []
            for number in range(1 if options.short else options.rounds):
                folder = Path(scratch) / shape.name / str(number)
                rounds.append({way: run(way, recipe_of(model, rows), folder / way) for way in ways})
            report(shape, rounds)


def train_apart(run_dir: str, cache: str) -> None:
    """As `python -m trainer`, but each document of a pair has its prompt to itself."""
    from trainer.__main__ import main as train
    from trainer.model.trained_model import TrainedModel

    TrainedModel.shares_prompts = property(lambda _: False)  # type: ignore[assignment, method-assign]
    sys.argv = ["trainer", run_dir, "--cache", cache]
    train()


def recipe_of(model: Path, rows: Path) -> dict[str, Any]:
    pairs = len(rows.read_text().splitlines())
    return {
        "model": str(model),
        "dataset": str(rows),
        "method": {"type": "dpo", "beta": 0.1},
        "adapter": {"r": 16, "alpha": 32},
        "batch": {"micro_batch_size": min(8, pairs), "gradient_accumulation_steps": pairs // min(8, pairs)}
        | {"max_length": 2048},
        "optimizer": {"learning_rate": 1e-4},
        "schedule": {"type": "constant", "epochs": EPOCHS, "warmup_steps": 0},
        "precision": "fp32",
    }


def run(way: str, recipe: dict[str, Any], folder: Path) -> Outcome:
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "work.json").write_text(json.dumps({"recipe": recipe}))
    # A fresh cache: nothing is known before.
    cache = str(folder / "cache")
    command = {
        "ours": [sys.executable, "-m", "trainer", str(folder), "--cache", cache],
        "not shared": [sys.executable, "-m", "benchmarks.preferences", "--apart", str(folder), cache],
        "trl": _of_trl(folder),
        "trl tuned": [*_of_trl(folder), "tuned"],
    }[way]
    environment = trainer_environment(os.environ) | {"OMP_NUM_THREADS": str(threads(1)), "HF_HUB_OFFLINE": "1"}
    watched = watch(command, ROOT, folder / "log.txt", environment, LIMIT_SECONDS)
    if watched.returncode != 0:
        sys.exit(f"{way} failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return _read(folder, watched.peak_bytes)


def _of_trl(folder: Path) -> list[str]:
    python = ENVIRONMENTS / "trl" / "bin" / "python"
    return [str(python), str(RIVALS / "trl_dpo.py"), str(folder / "work.json"), str(folder)]


def _read(folder: Path, peak_bytes: int) -> Outcome:
    if (folder / "events.jsonl").exists():
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        loaded = max(
            event["time"] for event in events if event["type"] == "phase" and event["name"] in ("model", "data")
        )
        steps = [event for event in events if event["type"] == "metric"]
    else:
        loaded = float((folder / "began").read_text())
        steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return Outcome(steps[-1]["time"] - loaded, peak_bytes, [step["loss"] for step in steps])


def report(shape: Shape, rounds: Sequence[Mapping[str, Outcome]]) -> None:
    print(f"{shape.name}: {EPOCHS} epochs; median of {len(rounds)} runs (range)")
    ways = list(rounds[0])
    for name, unit, found in (
        ("seconds", ".1f", {way: sorted(each[way].seconds for each in rounds) for way in ways}),
        ("MiB", ".0f", {way: sorted(each[way].peak_bytes / 2**20 for each in rounds) for way in ways}),
    ):
        ours = statistics.median(found["ours"])
        for way, values in found.items():
            middle = statistics.median(values)
            print(
                f"    {name:8} {way:11} {middle:{unit}}  ({values[0]:{unit}} to {values[-1]:{unit}})"
                f"  {middle / ours:.2f} of ours"
            )
    expected = rounds[0]["ours"].losses
    print(f"    losses {', '.join(f'{loss:.6f}' for loss in expected)}")
    for way in ways:
        farthest = max(
            abs(one - other) for each in rounds for one, other in zip(each[way].losses, expected, strict=True)
        )
        print(f"    losses   {way:11} differ by at most {farthest:.1e}")
        if farthest > (TOLERANCE if way in SHORT_WAYS else RANDOM_TOLERANCE):
            sys.exit("the losses differ")


if __name__ == "__main__":
    main()
