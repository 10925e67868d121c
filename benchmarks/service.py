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
import sys
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.costs import Costs, show, verdict
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
PROMISED = {"POST /jobs": 0.020, "POST /plans": 0.150, "GET /jobs": 0.010}
"""Seconds, on a machine that has nothing else to do."""
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
                costs = Costs.of(live.api.pid, folder / "postgres")
                sessions = make_sessions(sa.create_engine(database_url))
                measure(live, costs, sessions, 10 if arguments.short else 40)


def measure(live: Service, costs: Costs, sessions: Sessions, rounds: int) -> None:
    costs.time_requests("GET /health/live", rounds, lambda: live.client.get("/health/live"))
    costs.time_requests("POST /plans, the first with its model and dataset", 1, lambda: post(live, "/plans", RECIPE))
    plans = costs.time_requests("POST /plans, warm", rounds, lambda: post(live, "/plans", RECIPE))
    verdict("POST /plans", plans, PROMISED["POST /plans"])
    measure_jobs(live, costs, rounds)
    measure_starts(live, max(3, rounds // 4))
    measure_metrics(live, costs, sessions, rounds)


def measure_jobs(live: Service, costs: Costs, rounds: int) -> None:
    """The first job gets the worker's only device and keeps it; the others fill the queue."""
    costs.time_requests("POST /jobs, the first with its model and dataset", 1, lambda: post(live, "/jobs", RECIPE))
    (running,) = live.client.get("/jobs").json()["data"]
    wait_for_start(live, running["id"])
    posts = costs.time_requests("POST /jobs, each into a longer queue", QUEUED, lambda: post(live, "/jobs", RECIPE))
    verdict("POST /jobs", posts, PROMISED["POST /jobs"])

    page = live.client.get("/jobs?limit=100").raise_for_status().json()["data"]
    assert [job["status"] for job in page] == ["queued"] * QUEUED
    for path in ("/jobs?limit=100", "/jobs", f"/jobs/{page[0]['id']}"):
        title = f"GET {path.replace(page[0]['id'], '{id}')} with {QUEUED} queued jobs"
        median = costs.time_requests(title, rounds, partial(live.client.get, path))
        if path.startswith("/jobs?") or path == "/jobs":
            verdict(f"GET {path}", median, PROMISED["GET /jobs"])

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


def measure_metrics(live: Service, costs: Costs, sessions: Sessions, rounds: int) -> None:
    job_id = long_job(sessions)
    for query in ("", "?columns=loss&points=500", f"?since_step={STEPS - 10}"):
        path = f"/jobs/{job_id}/metrics{query}"
        size = len(live.client.get(path).content)
        title = f"GET /jobs/{{id}}/metrics{query} of {STEPS} steps, {size:,} bytes"
        costs.time_requests(title, rounds, partial(live.client.get, path))


def post(live: Service, path: str, body: bytes = b"") -> httpx.Response:
    return live.client.post(path, content=body).raise_for_status()


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


if __name__ == "__main__":
    main()
