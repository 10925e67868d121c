"""What a job takes on disk: `python -m benchmarks.disk` prints a table of the quickstart's files; `--short` is for CI.

The trainer runs as a worker runs it, on the quickstart's recipe, and is stopped in the middle, as a pause does, so that
a training checkpoint is there. Sizes do not depend on the number of steps, except those of events and log.
"""

import argparse
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.models import random_llama
from contract.run_dir import RunDir
from finetuned.stack.models import add_model
from worker.launchers.torchrun import launcher

ROOT = Path(__file__).parent.parent
MODEL = "smollm2-135m-instruct"
STEPS = 4
"""Steps after which the trainer is stopped."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small random model in place of the quickstart's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = random_llama(folder / "llama", 2, 128, 344) if arguments.short else _quickstart_model(folder)
        run = RunDir(folder / "run")
        steps = train(run, model)
        print(f"{model.name}, examples/recipes/quickstart.json, stopped after step {steps}")
        print("\n".join(table(run, steps)))


def _quickstart_model(folder: Path) -> Path:
    add_model(MODEL, folder, folder / "import.log")
    return folder / MODEL


def train(run: RunDir, model: Path) -> int:
    """Trains until the trainer has saved after a stop; returns the last step."""
    recipe = json.loads((ROOT / "examples" / "recipes" / "quickstart.json").read_text())
    recipe |= {"model": str(model), "evaluation": {"fraction": 0}, "checkpointing": {"every_steps": 2}}
    run.path.mkdir()
    run.recipe.write_text(json.dumps(recipe))
    with run.log.open("wb") as log:
        trainer = subprocess.Popen([*launcher(1), str(run.path)], cwd=ROOT, stdout=log, stderr=log)
        while _steps(run) < STEPS:
            if trainer.poll() is not None:
                raise SystemExit(f"the trainer ended early:\n{run.log.read_text()}")
            time.sleep(0.2)
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(120)
    return _steps(run)


def _steps(run: RunDir) -> int:
    if not run.events.exists():
        return 0
    lines = [line for line in run.events.read_text().splitlines() if '"metric"' in line]
    return len(lines)


def table(run: RunDir, steps: int) -> list[str]:
    """What each part takes, in Markdown."""
    (state, *_) = sorted(run.states.glob("step-*"), reverse=True)
    checkpoint = next(run.checkpoints.glob("step-*"))
    rows = {
        "a checkpoint, or the adapter (`adapter.tar`)": _size(checkpoint),
        "a training checkpoint": _size(state),
        "recipe, events and log, without the metrics": _size(run.recipe) + _size(run.log),
        "events, for 1,000 steps": round(_size(run.events) / steps * 1000),
    }
    return ["| | bytes |", "| --- | --- |", *(f"| {name} | {size:,} |" for name, size in rows.items())]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    main()
