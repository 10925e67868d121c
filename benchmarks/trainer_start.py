"""From launching the trainer to its first optimizer step, part by part: `python -m benchmarks.trainer_start MODEL`.

MODEL is a folder, such as the home folder's models/smollm2-135m-instruct. Each round trains on the quickstart's data
for one step, in a process of its own, as a worker does. `data` overlaps `model`, so the parts do not add up. On a busy
machine the CPU time says more than the clock.
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.models import random_llama
from worker.launchers.torchrun import launcher

ROUNDS = 5
ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer_start", description="Time the trainer's start.")
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="its folder; a small random one if absent")
    parser.add_argument("--short", action="store_true", help="one start")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model.resolve() if options.model else random_llama(Path(scratch) / "llama", 2, 128, 344)
        rounds = [start_once(model) for _ in range(1 if options.short else ROUNDS)]
    print(f"seconds, median of {len(rounds)} starts (range); {model.name}, {ROOT.name}/examples/data/quickstart.jsonl")
    for part in rounds[0]:
        seconds = sorted(each[part] for each in rounds)
        print(f"    {part:32} {statistics.median(seconds):5.2f}  ({seconds[0]:.2f} to {seconds[-1]:.2f})")


def start_once(model: Path) -> dict[str, float]:
    recipe = json.loads((ROOT / "examples" / "recipes" / "quickstart.json").read_text())
    recipe |= {"model": str(model), "evaluation": {"fraction": 0}, "schedule": {"max_steps": 1}}
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        (run_dir / "recipe.json").write_text(json.dumps(recipe))
        began, cpu = time.time(), _cpu_of_children()
        subprocess.run([*launcher(1), name], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    phases = {event["name"]: event for event in events if event["type"] == "phase"}
    imports = phases["imports"]
    return {
        "until it imports": imports["time"] - imports["seconds"] - began,
        **{name: phase["seconds"] for name, phase in phases.items()},
        "launch to the first step done": phases["first_step"]["time"] - began,
        "CPU time of the whole job": _cpu_of_children() - cpu,
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
