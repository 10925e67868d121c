"""From launching the trainer to its first optimizer step, part by part: `python -m benchmarks.trainer_start MODEL`.

MODEL is a folder, such as the home folder's models/smollm2-135m-instruct. Each round trains on the quickstart's data
for one step, in a process of its own, as a worker does. `data` overlaps `model`, so the parts do not add up.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from worker.attempt.command import launcher

ROUNDS = 5
ROOT = Path(__file__).parent.parent


def main() -> None:
    model = Path(sys.argv[1]).resolve()
    rounds = [start_once(model) for _ in range(ROUNDS)]
    print(f"seconds, median of {ROUNDS} starts (range); {model.name}, {ROOT.name}/examples/data/quickstart.jsonl")
    for part in rounds[0]:
        seconds = sorted(each[part] for each in rounds)
        print(f"    {part:32} {statistics.median(seconds):5.2f}  ({seconds[0]:.2f} to {seconds[-1]:.2f})")


def start_once(model: Path) -> dict[str, float]:
    recipe = json.loads((ROOT / "examples" / "recipes" / "quickstart.json").read_text())
    recipe |= {"model": str(model), "evaluation": {"fraction": 0}, "schedule": {"max_steps": 1}}
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name)
        (run_dir / "recipe.json").write_text(json.dumps(recipe))
        began = time.time()
        subprocess.run([*launcher(1), name], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    phases = {event["name"]: event for event in events if event["type"] == "phase"}
    imports = phases["imports"]
    return {
        "until it imports": imports["time"] - imports["seconds"] - began,
        **{name: phase["seconds"] for name, phase in phases.items()},
        "launch to the first step done": phases["first_step"]["time"] - began,
    }


if __name__ == "__main__":
    main()
