"""DPO step by step beside TRL's DPOTrainer: `python -m benchmarks.agreement`.

A small random llama in fp32 continues a small random adapter, which is the reference too, on pairs of unlike lengths,
which TRL pads. Each step has all the pairs. Losses and gradient norms must agree as closely as TRL's own tests demand
of its trainers: the largest difference of any step, and the mean of all differences with their signs, which shows a
drift. Label smoothing is no part of TRL's "sigmoid", and its "sft" averages over a micro-batch instead of an answer, so
neither is compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trainer.arms import ENVIRONMENTS, RIVALS
from benchmarks.trainer.measure import watch
from benchmarks.trainer.pairs import Shape, make_model, write_pairs
from benchmarks.trainer.work import ROOT, threads
from worker.supervise.process import trainer_environment

Steps = list[dict[str, Any]]

METHODS: tuple[dict[str, Any], ...] = (
    {"loss": "sigmoid"},
    {"loss": "sigmoid_norm"},
    {"loss": "ipo"},
)
SHAPE = Shape("unlike lengths", prompts=(30, 6, 12, 6), answers=(24, 5, 10, 6))
PAIRS = 8
STEPS = 50
LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Bounds:
    largest: float
    mean: float


BOUNDS = {"loss": Bounds(1e-4, 1e-5), "grad_norm": Bounds(1e-2, 1e-3)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description="DPO step by step beside TRL.")
    parser.add_argument("--steps", type=int, default=STEPS, help="(%(default)s)")
    parser.add_argument("--short", action="store_true", help="three steps beside this trainer's own, pair by pair")
    options = parser.parse_args()
    if not options.short:
        subprocess.run([RIVALS / "setup", "trl"], check=True)
    steps, reference = (3, train_pair_by_pair) if options.short else (options.steps, train_with_trl)
    with tempfile.TemporaryDirectory(prefix="finetuned-agreement-") as scratch:
        folder = Path(scratch)
        model = make_model(folder / "model", small=True, layers=2)
        rows = write_pairs(folder / "rows.jsonl", SHAPE, PAIRS)
        adapter = write_adapter(model, folder / "adapter")
        print(f"{steps} steps of {PAIRS} pairs; differences, their bounds in brackets")
        agreed = [
            compare(recipe_of(model, rows, adapter, method, steps), reference, folder / str(number))
            for number, method in enumerate(METHODS)
        ]
    if not all(agreed):
        sys.exit("they differ")


def write_adapter(model: Path, folder: Path) -> Path:
    """An adapter that changes what the base answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(folder)
    return folder


def recipe_of(model: Path, rows: Path, adapter: Path, method: dict[str, Any], steps: int) -> dict[str, Any]:
    return {
        "model": str(model),
        "dataset": str(rows),
        "method": {"type": "dpo", "beta": 0.1, **method},
        "adapter": {"start_from": str(adapter)},
        "batch": {"micro_batch_size": PAIRS // 2, "gradient_accumulation_steps": 2, "max_length": 2048},
        "optimizer": {"learning_rate": 1e-4},
        "schedule": {"type": "constant", "epochs": steps, "warmup_steps": 0},
        "precision": "fp32",
    }


def compare(recipe: dict[str, Any], reference: Callable[[dict[str, Any], Path], Steps], folder: Path) -> bool:
    ours, theirs = train(recipe, folder / "ours"), reference(recipe, folder / "reference")
    print(f"{recipe['method']['loss']}: loss {ours[0]['loss']:.6f} to {ours[-1]['loss']:.6f}")
    agreed = True
    for name, bounds in BOUNDS.items():
        differences = [one[name] - other[name] for one, other in zip(ours, theirs, strict=True)]
        largest, mean = max(map(abs, differences)), abs(sum(differences) / len(differences))
        print(f"    {name:10} at most {largest:.1e} ({bounds.largest:g})   mean {mean:.1e} ({bounds.mean:g})")
        agreed &= largest <= bounds.largest and mean <= bounds.mean
    return agreed


def train(recipe: dict[str, Any], folder: Path) -> Steps:
    prepare(folder, recipe)
    run([sys.executable, "-m", "trainer", str(folder), "--cache", str(folder / "cache")], folder)
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["type"] == "metric"]


def train_pair_by_pair(recipe: dict[str, Any], folder: Path) -> Steps:
    batch = recipe["batch"] | {"micro_batch_size": 1, "gradient_accumulation_steps": PAIRS}
    return train(recipe | {"batch": batch}, folder)


def train_with_trl(recipe: dict[str, Any], folder: Path) -> Steps:
    prepare(folder, recipe)
    python = ENVIRONMENTS / "trl" / "bin" / "python"
    run([str(python), str(RIVALS / "trl_preferences.py"), str(folder / "work.json"), str(folder), "tuned"], folder)
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def prepare(folder: Path, recipe: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "work.json").write_text(json.dumps({"recipe": recipe}))


def run(command: Sequence[str], folder: Path) -> None:
    environment = trainer_environment(os.environ) | {"OMP_NUM_THREADS": str(threads(1)), "HF_HUB_OFFLINE": "1"}
    if watch(list(command), ROOT, folder / "log.txt", environment, LIMIT_SECONDS).returncode != 0:
        sys.exit((folder / "log.txt").read_text()[-3000:])


if __name__ == "__main__":
    main()
