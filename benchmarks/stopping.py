"""How soon the service does what it promises: `python -m benchmarks.stopping MODEL` prints it.

- From POST /jobs/{id}/pause to the job's device being free, against the time of one step and of one checkpoint.
- Likewise from SIGTERM to a worker.
- From a worker's SIGKILL to its job's next attempt on another worker, and to that one's first step.

MODEL is a folder, such as the home folder's models/smollm2-135m-instruct. Everything is real, the trainer too; each
figure is taken ROUNDS times, with the default settings. Exits with 1 where one of them is over what is promised, which
is so of a machine that has nothing else to do.
"""

import argparse
import itertools
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.models import random_llama
from benchmarks.servers import running_servers
from tests.support import service
from tests.support.service import Service
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent
ROUNDS = 2
CHECKPOINTS = 4
"""Whose times are taken in a round: one may come upon a busy disk."""
EVERY = 5
"""Steps there is one."""
PROMISED = {
    "pause": ("beyond a step and a checkpoint", 1.0),
    "drain": ("beyond a step and a checkpoint", 1.0),
    "kill": ("to the next attempt", 15.0),
}
"""Seconds at most, of a figure of each. Beyond a step and a checkpoint there is the request's way to the trainer, and
the end of its processes."""
RECIPE = {
    "model": "base",
    "dataset": str(ROOT / "examples" / "data" / "quickstart.jsonl"),
    "batch": {"micro_batch_size": 4},
    "schedule": {"epochs": 100},
    "checkpointing": {"every_steps": EVERY},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description="Time pauses, drains and kills.")
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="its folder; a small random one if absent")
    parser.add_argument("--short", action="store_true", help="pause and kill once; exit with 0 whatever the times")
    options = parser.parse_args()
    with running_servers() as servers:
        base = servers.home / "models" / "base"
        shutil.copytree(options.model, base) if options.model else random_llama(base, 2, 128, 344)
        settings = {"FINETUNED_ALLOWED_PATHS": str(ROOT)}
        with service.running(servers.home, servers.database_url, servers.broker_url, ["a", "b"], **settings) as live:
            kept = measure(live, ["pause", "kill"], 1) if options.short else measure(live, [*ACTS], ROUNDS)
    sys.exit(0 if kept or options.short else 1)


def measure(live: Service, names: list[str], rounds: int) -> bool:
    """Whether all is kept that is promised."""
    broken = 0
    for title in names:
        taken = [figures(live, ACTS[title]) for _ in range(rounds)]
        print(title)
        for name in taken[0]:
            values = [each[name] for each in taken]
            print(f"    {name}: median {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
        name, most = PROMISED[title]
        longest = max(each[name] for each in taken)
        broken += longest > most
        print(f"    {'NOT KEPT' if longest > most else 'kept'}: {name} {longest:.2f} s at most, {most:.0f} promised")
    return not broken


def figures(live: Service, act: Callable[[Service, str], dict[str, float]]) -> dict[str, float]:
    job_id = live.submit(**RECIPE)["id"]
    live.wait_for_step(job_id, CHECKPOINTS * EVERY + 1, seconds=300)
    reported = act(live, job_id)
    live.ask("cancel?force=true", job_id)
    live.wait(job_id, seconds=120)
    return reported


def pause(live: Service, job_id: str) -> dict[str, float]:
    requested = time.time()
    live.ask("pause", job_id)
    until(lambda: not live.job(job_id)["devices"], seconds=120)
    return against_step_and_checkpoint(live, job_id, time.time() - requested)


def drain(live: Service, job_id: str) -> dict[str, float]:
    name = live.job(job_id)["worker"]
    requested = time.time()
    live.workers[name].terminate()
    until(lambda: name not in {device["worker"] for device in live.job(job_id)["devices"]}, seconds=120)
    took = time.time() - requested
    live.workers[name].wait()
    live.start_worker(name)
    return against_step_and_checkpoint(live, job_id, took)


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
    return [{"time": reported} for reported in columns["time"]]


def against_step_and_checkpoint(live: Service, job_id: str, freed: float) -> dict[str, float]:
    """A step's time, and what a step with a checkpoint after it takes more: the medians of the round."""
    times = live.metrics(job_id)["time"]
    steps = dict(enumerate((after - before for before, after in itertools.pairwise(times)), start=1))
    step = statistics.median(took for number, took in steps.items() if number % EVERY)
    checkpoint = max(0.0, statistics.median(took for number, took in steps.items() if number % EVERY == 0) - step)
    return {
        "to its device being free": freed,
        "a step": step,
        "a checkpoint": checkpoint,
        "beyond a step and a checkpoint": freed - step - checkpoint,
    }


ACTS = {"pause": pause, "drain": drain, "kill": kill}


if __name__ == "__main__":
    main()
