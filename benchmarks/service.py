"""Figures of the service itself: `python -m benchmarks.service` prints them; `--short` is for CI.

- The answers' times with a real model and its tokenizer (SmolLM2-135M-Instruct), the quickstart's dataset of 204 rows,
  and a queue of 100 jobs: GET /health/live beside POST /jobs, POST /plans and GET /jobs.
- From POST /jobs to the first line of the trainer's process: commit, wake-up, claim, run folder, guard, exec.
- GET /jobs/{id}/metrics of a job of 10,000 steps, whole and thinned to 500 points.

Everything is real, PostgreSQL, Valkey, uvicorn and Celery, over HTTP on loopback. Only the trainer is a stub: it writes
the time at which it started and waits until its job is cancelled.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import psutil
import sqlalchemy as sa

from contract import events
from contract.recipe import Recipe
from contract.status import JobStatus
from finetuned.stack import postgres, valkey
from finetuned.stack.models import add_model
from store.jobs import actions, jobs, progress
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support import service
from tests.support.jobs import claim
from tests.support.service import Service
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent
MODEL = "smollm2-135m-instruct"
RECIPE = (ROOT / "examples" / "recipes" / "quickstart.json").read_bytes()
STUB = """
import sys, time, pathlib
file = pathlib.Path(sys.argv[1], "started")
file.with_suffix(".part").write_text(str(time.time()))
file.with_suffix(".part").rename(file)
time.sleep(3600)
"""
QUEUED = 100
STEPS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quarter of the requests")
    parser.add_argument("--model", type=Path, help=f"a folder with {MODEL}, in place of one that is unpacked now")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        home = folder / "home"
        (home / "models").mkdir(parents=True)
        if arguments.model is None:
            add_model(MODEL, home / "models", folder / "import.log")
        else:
            (home / "models" / MODEL).symlink_to(arguments.model.resolve())
        trainer = shlex.join([sys.executable, "-S", "-E", "-c", STUB])
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            service.migrate(database_url)
            settings = {"FINETUNED_TRAINER": trainer, "FINETUNED_ALLOWED_PATHS": str(ROOT)}
            with service.running(home, database_url, broker_url, **settings) as live:
                measure(live, make_sessions(sa.create_engine(database_url)), 10 if arguments.short else 40)


def measure(live: Service, sessions: Sessions, rounds: int) -> None:
    time_requests(live, "GET /health/live", rounds, lambda: live.client.get("/health/live"))
    time_requests(live, "POST /plans, the first with its model and dataset", 1, lambda: post(live, "/plans", RECIPE))
    time_requests(live, "POST /plans, warm", rounds, lambda: post(live, "/plans", RECIPE))
    measure_jobs(live, rounds)
    measure_starts(live, max(3, rounds // 4))
    measure_metrics(live, sessions, rounds)


def measure_jobs(live: Service, rounds: int) -> None:
    """The first job gets the worker's only device and keeps it; the others fill the queue."""
    time_requests(live, "POST /jobs, the first with its model and dataset", 1, lambda: post(live, "/jobs", RECIPE))
    (running,) = live.client.get("/jobs").json()["data"]
    wait_for_start(live, running["id"])
    time_requests(live, "POST /jobs, each into a longer queue", QUEUED, lambda: post(live, "/jobs", RECIPE))

    page = live.client.get("/jobs?limit=100").raise_for_status().json()["data"]
    assert [job["status"] for job in page] == ["queued"] * QUEUED
    for path in ("/jobs?limit=100", "/jobs", f"/jobs/{page[0]['id']}"):
        title = f"GET {path.replace(page[0]['id'], '{id}')} with {QUEUED} queued jobs"
        time_requests(live, title, rounds, partial(live.client.get, path))

    for job in [*page, running]:
        post(live, f"/jobs/{job['id']}/cancel?force=true")
    live.wait(running["id"])


def measure_starts(live: Service, rounds: int) -> None:
    starts = [trainer_start(live) for _ in range(rounds)]
    show(f"POST /jobs to the trainer's process, idle worker ({rounds} jobs, one by one)", starts)


def trainer_start(live: Service) -> float:
    """Seconds from sending the request to the first line of the trainer."""
    began = time.time()
    job_id = post(live, "/jobs", RECIPE).json()["id"]
    started = wait_for_start(live, job_id)
    post(live, f"/jobs/{job_id}/cancel?force=true")
    live.wait(job_id)
    return started - began


def wait_for_start(live: Service, job_id: str) -> float:
    """When its trainer started, in epoch seconds."""
    file = live.run_dir(job_id).path / "started"
    return float(until(lambda: file.read_text() if file.exists() else None, seconds=60))


def measure_metrics(live: Service, sessions: Sessions, rounds: int) -> None:
    job_id = long_job(sessions)
    for query in ("", "?columns=loss&points=500", f"?since_step={STEPS - 10}"):
        path = f"/jobs/{job_id}/metrics{query}"
        size = len(live.client.get(path).content)
        title = f"GET /jobs/{{id}}/metrics{query} of {STEPS} steps, {size:,} bytes"
        time_requests(live, title, rounds, partial(live.client.get, path))


def post(live: Service, path: str, body: bytes = b"") -> httpx.Response:
    return live.client.post(path, content=body).raise_for_status()


def time_requests(live: Service, title: str, count: int, request: Callable[[], httpx.Response]) -> None:
    """Prints the answers' times, and the CPU time of the API's process for each, which says more on a busy machine."""
    api = psutil.Process(live.api.pid)
    before, seconds = api.cpu_times(), []
    for _ in range(count):
        began = time.perf_counter()
        answer = request()
        seconds.append(time.perf_counter() - began)
        answer.raise_for_status()
    after = api.cpu_times()
    cpu = sum(after[:4]) - sum(before[:4])  # user, system, and those of its ended children
    show(f"{title} ({count} requests; {cpu / count * 1e3:.1f} ms of CPU each)", seconds)


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
    p95 = ordered[max(0, int(len(ordered) * 0.95) - 1)]
    print(title)
    print(f"    median {statistics.median(ordered) * 1e3:.1f} ms, p95 {p95 * 1e3:.1f}, max {ordered[-1] * 1e3:.1f}")


if __name__ == "__main__":
    main()
