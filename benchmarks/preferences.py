"""DPO, ORPO and KTO beside TRL's trainers, and with and without shared prompts: `python -m benchmarks.preferences`.

A small random llama in fp32 learns from pairs, or from their answers with a rating, in three epochs of one step each.
Each way runs in a process of its own, in turn with the others. Seconds are those from the loaded model to the end of
the last step, with the log probabilities before training: of the clock, and of the processor, which say more on a
machine with other work. Memory is the most that all processes of a way held at once. The losses must agree.
"""

import argparse
import datetime
import importlib.metadata
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
from benchmarks.trainer.measure import Watched, watch
from benchmarks.trainer.pairs import Shape, make_model, write_pairs, write_ratings
from benchmarks.trainer.work import ROOT, threads
from worker.supervise.process import trainer_environment

WAYS = ("ours", "not shared", "trl", "trl tuned")
SHORT_WAYS = ("ours", "not shared")
METHODS = ("dpo", "orpo", "kto")
EPOCHS = 3
LIMIT_SECONDS = 1800
TOLERANCE = 1e-5
RANDOM_TOLERANCES = {"dpo": 2e-2, "orpo": 0.2, "kto": 2e-2}
"""TRL draws other numbers for A. All start at the same loss, since B is zero, but for ORPO: TRL's has the loss of the
prompt too, and its mean over a micro-batch."""
SHAPES = (
    Shape("half padding", prompts=(200, 40, 80, 40), answers=(160, 30, 70, 40)),
    Shape("prompts four times as long as answers", prompts=(320,), answers=(80,)),
)
SHORT_SHAPES = (Shape("prompts four times as long as answers", prompts=(40,), answers=(10,)),)


@dataclass(frozen=True)
class Outcome:
    seconds: float
    processor_seconds: float
    peak_bytes: int
    losses: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preferences", description="Methods beside TRL's.")
    parser.add_argument("--short", action="store_true", help="ours alone, a small model, once")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--pairs", type=int, default=16, help="of a step (%(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="of the model (%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="(all)")
    parser.add_argument("--shapes", nargs="+", choices=[each.name for each in SHAPES], help="of the rows (all)")
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
        print(describe())
        shapes = [each for each in SHAPES if each.name in (options.shapes or each.name)]
        for shape in SHORT_SHAPES if options.short else shapes:
            for method in options.methods:
                write = write_ratings if method == "kto" else write_pairs
                folder = Path(scratch) / shape.name / method
                folder.mkdir(parents=True)
                rows = write(folder / "rows.jsonl", shape, 8 if options.short else options.pairs)
                recipe = recipe_of(method, model, rows)
                # An answer with a rating shares no prompt.
                taken = [way for way in ways if (way, method) != ("not shared", "kto")]
                rounds = [
                    {way: run(way, recipe, folder / str(number) / way) for way in taken}
                    for number in range(1 if options.short else options.rounds)
                ]
                report(method, shape, rounds)


def train_apart(run_dir: str, cache: str) -> None:
    """As `python -m trainer`, but each document of a pair has its prompt to itself."""
    from trainer.__main__ import main as train
    from trainer.model.trained_model import TrainedModel

    TrainedModel.shares_prompts = property(lambda _: False)  # type: ignore[assignment, method-assign]
    sys.argv = ["trainer", run_dir, "--cache", cache]
    train()


def describe() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft")]
    return ", ".join([str(datetime.datetime.now(datetime.UTC).date()), f"{threads(1)} threads", *versions])


def recipe_of(method: str, model: Path, rows: Path) -> dict[str, Any]:
    items = len(rows.read_text().splitlines())
    return {
        "model": str(model),
        "dataset": str(rows),
        "method": {"type": method, "beta": 0.1},
        "adapter": {"r": 16, "alpha": 32},
        "batch": {"micro_batch_size": min(8, items), "gradient_accumulation_steps": items // min(8, items)}
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
    return _read(folder, watched)


def _of_trl(folder: Path) -> list[str]:
    python = ENVIRONMENTS / "trl" / "bin" / "python"
    return [str(python), str(RIVALS / "trl_preferences.py"), str(folder / "work.json"), str(folder)]


def _read(folder: Path, watched: Watched) -> Outcome:
    if (folder / "events.jsonl").exists():
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        loaded = max(
            event["time"] for event in events if event["type"] == "phase" and event["name"] in ("model", "data")
        )
        steps = [event for event in events if event["type"] == "metric"]
    else:
        loaded = float((folder / "began").read_text())
        steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    last = steps[-1]["time"]
    losses = [step["loss"] for step in steps]
    return Outcome(last - loaded, watched.processor_seconds(loaded, last), watched.peak_bytes, losses)


def report(method: str, shape: Shape, rounds: Sequence[Mapping[str, Outcome]]) -> None:
    print(f"{method}, {shape.name}: {EPOCHS} epochs; median of {len(rounds)} runs (range)")
    ways = list(rounds[0])
    for name, unit, found in (
        ("seconds", ".1f", {way: sorted(each[way].seconds for each in rounds) for way in ways}),
        ("of the CPU", ".1f", {way: sorted(each[way].processor_seconds for each in rounds) for way in ways}),
        ("MiB", ".0f", {way: sorted(each[way].peak_bytes / 2**20 for each in rounds) for way in ways}),
    ):
        ours = statistics.median(found["ours"])
        for way, values in found.items():
            middle = statistics.median(values)
            print(
                f"    {name:12} {way:11} {middle:{unit}}  ({values[0]:{unit}} to {values[-1]:{unit}})"
                f"  {middle / ours:.2f} of ours"
            )
    expected = rounds[0]["ours"].losses
    print(f"    losses {', '.join(f'{loss:.6f}' for loss in expected)}")
    for way in ways:
        farthest = max(
            abs(one - other) for each in rounds for one, other in zip(each[way].losses, expected, strict=True)
        )
        print(f"    losses   {way:11} differ by at most {farthest:.1e}")
        if farthest > (TOLERANCE if way in SHORT_WAYS else RANDOM_TOLERANCES[method]):
            sys.exit("the losses differ")


if __name__ == "__main__":
    main()
