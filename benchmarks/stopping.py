"""How soon the service does what it promises: `python -m benchmarks.stopping MODEL` prints it.

- From POST /jobs/{id}/pause to the job's device being free, against the time of one step and of one checkpoint.
- Likewise from SIGTERM to a worker.
- From a worker's SIGKILL to its job's next attempt on another worker, and to that one's first step.

MODEL is a folder, such as the home folder's models/smollm2-135m-instruct. Everything is real, the trainer too; each
figure is taken ROUNDS times, with the default settings.
"""

import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetuned import postgres, valkey
from tests import service
from tests.service import Service, until

ROOT = Path(__file__).parent.parent
ROUNDS = 2
RECIPE = {
    "model": "base",
    "dataset": str(ROOT / "examples" / "data" / "quickstart.jsonl"),
    "batch": {"micro_batch": 4},
    "schedule": {"epochs": 100},
    "checkpointing": {"every_steps": 10},
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        shutil.copytree(sys.argv[1], folder / "home" / "models" / "base")
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            service.run("migrations", {**os.environ, "FINETUNED_DATABASE_URL": database_url})
            settings = {"FINETUNED_ALLOWED_PATHS": str(ROOT)}
            with service.running(folder / "home", database_url, broker_url, ["a", "b"], **settings) as live:
                measure(live)


def measure(live: Service) -> None:
    for title, act in (("pause", pause), ("drain", drain), ("kill", kill)):
        taken = [figures(live, act) for _ in range(ROUNDS)]
        print(title)
        for name in taken[0]:
            values = [each[name] for each in taken]
            print(f"    {name}: median {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")


def figures(live: Service, act: Callable[[Service, str], dict[str, float]]) -> dict[str, float]:
    job_id = live.submit(**RECIPE)["id"]
    live.wait_for_step(job_id, 12, seconds=300)
    told = act(live, job_id)
    live.ask("cancel?force=true", job_id)
    live.wait(job_id, seconds=120)
    return told


def pause(live: Service, job_id: str) -> dict[str, float]:
    asked = time.time()
    live.ask("pause", job_id)
    until(lambda: not live.job(job_id)["devices"], seconds=120)
    return {"to its device being free": time.time() - asked} | step_and_checkpoint(live, job_id)


def drain(live: Service, job_id: str) -> dict[str, float]:
    name = live.job(job_id)["worker"]
    asked = time.time()
    live.workers[name].terminate()
    until(lambda: name not in {device["worker"] for device in live.job(job_id)["devices"]}, seconds=120)
    took = {"to its device being free": time.time() - asked}
    live.workers[name].wait()
    live.start_worker(name)
    return took | step_and_checkpoint(live, job_id)


def kill(live: Service, job_id: str) -> dict[str, float]:
    job = live.job(job_id)
    killed = time.time()
    live.kill_worker(job["worker"])
    until(lambda: live.job(job_id)["attempt"] == job["attempt"] + 1, seconds=120)
    begun = time.time() - killed
    until(lambda: any(event["time"] > killed + begun for event in metrics(live, job_id)), seconds=300)
    first = min(event["time"] for event in metrics(live, job_id) if event["time"] > killed + begun)
    live.start_worker(job["worker"])
    return {"to the next attempt": begun, "to its first step": first - killed}


def metrics(live: Service, job_id: str) -> list[dict[str, Any]]:
    columns = live.metrics(job_id)
    return [{"time": told} for told in columns["time"]]


def step_and_checkpoint(live: Service, job_id: str) -> dict[str, float]:
    """A step's time, and what a step with a checkpoint after it takes more."""
    times = live.metrics(job_id)["time"]
    steps = [after - before for before, after in itertools.pairwise(times)]
    step = statistics.median(steps)
    # Between steps 10 and 11 the first checkpoint is saved.
    checkpoint = max(0.0, times[10] - times[9] - step)
    return {"a step": step, "a checkpoint": checkpoint, "both together": step + checkpoint}


if __name__ == "__main__":
    main()
