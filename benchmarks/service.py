"""Figures of the service itself: `python -m benchmarks.service` prints them.

- POST /jobs: from the request to the answer, for the quickstart's recipe with its real dataset.
- GET /jobs/{id}/metrics of a job of 10,000 steps, whole and thinned to 500 points.
- From POST /jobs to the first line of the trainer's process: commit, wake-up, claim, run folder, guard, exec.

Everything is real, PostgreSQL, Valkey, uvicorn and Celery, over HTTP on loopback; only the trainer is a stub, which
writes the time at which it started.
"""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from contract import events
from contract.recipe import Recipe
from contract.status import JobStatus
from finetuned.stack import postgres, valkey
from store.jobs import actions, jobs, progress
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support import service
from tests.support.files import write_model
from tests.support.jobs import claim
from tests.support.service import Service

ROOT = Path(__file__).parent.parent
STUB = 'import sys, time, pathlib; pathlib.Path(sys.argv[1], "started").write_text(str(time.time()))'
STEPS = 10_000
ROUNDS = 50


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        home = folder / "home"
        write_model(home / "models" / "smollm2-135m-instruct")
        trainer = shlex.join([sys.executable, "-S", "-E", "-c", STUB])
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            migrate = {**os.environ, "FINETUNED_DATABASE_URL": database_url}
            subprocess.run([sys.executable, "-m", "migrations"], env=migrate, check=True)
            settings = {"FINETUNED_TRAINER": trainer, "FINETUNED_ALLOWED_PATHS": str(ROOT)}
            with service.running(home, database_url, broker_url, **settings) as live:
                measure(live, make_sessions(sa.create_engine(database_url)))


def measure(live: Service, sessions: Sessions) -> None:
    recipe = (ROOT / "examples" / "recipes" / "quickstart.json").read_bytes()
    rows = len((ROOT / "examples" / "data" / "quickstart.jsonl").read_text().splitlines())
    wait_for_worker(live, recipe)

    starts = [trainer_start(live, recipe) for _ in range(ROUNDS)]
    show(f"POST /jobs to the trainer's process, idle worker ({ROUNDS} jobs, one by one)", starts)

    posts = [timed(lambda: live.client.post("/jobs", content=recipe).raise_for_status()) for _ in range(ROUNDS * 4)]
    show(f"POST /jobs ({len(posts)} requests; a dataset of {rows} rows is checked in each)", posts)

    job_id = long_job(sessions)
    for query in ("", "?downsample=500", f"?since_step={STEPS - 10}"):
        path = f"/jobs/{job_id}/metrics{query}"
        reads = [timed(lambda: live.client.get(path).raise_for_status()) for _ in range(ROUNDS)]  # noqa: B023
        size = len(live.client.get(path).content)
        show(f"GET /jobs/{{id}}/metrics{query} of {STEPS} steps ({ROUNDS} requests, {size:,} bytes)", reads)


def wait_for_worker(live: Service, recipe: bytes) -> None:
    """The first job also waits for the worker to have started."""
    job_id = live.client.post("/jobs", content=recipe).raise_for_status().json()["id"]
    live.wait(job_id, seconds=60)


def trainer_start(live: Service, recipe: bytes) -> float:
    """Seconds from sending the request to the first line of the trainer."""
    began = time.time()
    job_id = live.client.post("/jobs", content=recipe).raise_for_status().json()["id"]
    live.wait(job_id)
    return float((live.run_dir(job_id).path / "started").read_text()) - began


def timed(request: Callable[[], object]) -> float:
    began = time.perf_counter()
    request()
    return time.perf_counter() - began


def long_job(sessions: Sessions) -> str:
    recipe = Recipe.model_validate({"model": "m", "dataset": "d"})
    lease = timedelta(hours=1)
    with sessions.begin() as session:
        for waiting in session.scalars(sa.select(Job).where(Job.status == JobStatus.QUEUED)):
            actions.cancel(session, waiting.id)
        jobs.create(session, recipe)
        job = claim(session, lease)
        assert job is not None
        progress.record(session, job.id, job.attempt, [metric(step) for step in range(1, STEPS + 1)], lease)
    return job.id


def metric(step: int) -> events.MetricEvent:
    return events.MetricEvent(
        time=time.time(),
        step=step,
        epoch=step / 1234,
        loss=2.718281828 / step**0.1,
        learning_rate=2e-4 * (1 - step / STEPS),
        grad_norm=0.7 + 1 / step,
        tokens=8192,
        supervised_tokens=4321,
        tokens_per_second=12345.678,
        memory_bytes=42 * 2**30,
        progress=step / STEPS,
        eta_seconds=(STEPS - step) * 0.66,
    )


def show(title: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[int(len(ordered) * 0.95) - 1]
    print(title)
    print(f"    median {statistics.median(ordered) * 1e3:.1f} ms, p95 {p95 * 1e3:.1f}, max {ordered[-1] * 1e3:.1f}")


if __name__ == "__main__":
    main()
