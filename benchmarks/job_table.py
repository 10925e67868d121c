"""What open pages with the live table of jobs cost the API: `python -m benchmarks.job_table` prints it.

The database has 1,000 jobs, of which 4 run and record a step a second each, 16 wait, and the others have ended with a
curve of 200 steps. Printed are the CPU time of the API's process over a minute without and with open pages, and the
bytes that each page receives; then how long a first table takes, and thinned curves of a job of 100,000 steps.
`--short` is for CI.
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import sqlalchemy as sa

from benchmarks.api_load import cpu_of, process_at, running_jobs
from benchmarks.costs import Costs, verdict
from benchmarks.many_metrics import insert_metrics
from benchmarks.servers import running_servers, serving
from benchmarks.service import metric
from store.jobs import jobs, progress
from store.jobs.loss_curve import LOSS_CURVE
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support import many_jobs
from tests.support.jobs import LEASE, make_recipe

PROMISED_SHARE = 0.01
"""Of a core, for one open page."""
PROMISED_TABLE, PROMISED_CURVE = 0.150, 0.200
"""Seconds."""
_LONG = sa.text(
    "INSERT INTO metrics (job_id, step, time, epoch, loss, learning_rate, grad_norm, overflow, skipped_steps, tokens, "
    "supervised_tokens, tokens_per_second, memory_bytes, progress, eta_seconds) "
    "SELECT :job_id, step, step / 2.0, step / 1000.0, 2 + random(), 1e-4, random(), false, 0, 8192, 4000, "
    "1000 * random(), 1, step / 1e5, 0 FROM generate_series(10, :steps) step"
)
"""The first nine steps are those of many_jobs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_table", description="Cost of the live table.")
    parser.add_argument("--short", action="store_true", help="for five seconds, and 10,000 steps")
    short = parser.parse_args().short
    seconds, steps = (5.0, 10_000) if short else (60.0, 100_000)
    with running_servers() as servers:
        engine = sa.create_engine(servers.database_url)
        sessions = make_sessions(engine)
        many_jobs.fill(engine, 980)
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM metrics"))
            insert_metrics(connection, 980, 200)
            connection.execute(sa.text(f"UPDATE jobs SET loss_curve = {LOSS_CURVE}"))
            long = connection.scalar(sa.text("SELECT id FROM jobs ORDER BY id LIMIT 1"))
            connection.execute(sa.text("DELETE FROM metrics WHERE job_id = :id AND step >= 10"), {"id": long})
            connection.execute(_LONG, {"job_id": long, "steps": steps})
        ours = running_jobs(sessions, 4, steps=50)
        for _ in range(16):
            waiting(sessions)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with serving(["-m", "api"], servers.environment, "/health") as port, training(sessions, ours):
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
                costs = Costs.of(process_at(port), servers.folder / "postgres")
                costs.time_requests("GET /health/live", 40, partial(client.get, "/health/live"))
                time_first_table(costs, client)
                time_curves(costs, client, str(long), steps)
            none = share(port, seconds)
            for pages in (1, 10):
                measure(port, pages, seconds, none)
        engine.dispose()


def waiting(sessions: Sessions) -> None:
    with sessions.begin() as session:
        jobs.create(session, make_recipe())


@contextmanager
def training(sessions: Sessions, ours: list[Job]) -> Iterator[None]:
    """Each of the jobs records a step a second, in a thread."""
    over = threading.Event()

    def train() -> None:
        step = 50
        while not over.wait(1.0):
            step += 1
            for job in ours:
                with sessions.begin() as session:
                    progress.record(session, job.id, job.attempt, [metric(step)], LEASE)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def time_first_table(costs: Costs, client: httpx.Client) -> None:
    def first() -> httpx.Response:
        with client.stream("GET", "/jobs", headers={"accept": "text/event-stream"}) as answer:
            next(events(answer))
        return answer

    first()
    verdict("first table of 1,000 jobs", costs.time_requests("first table of 1,000 jobs", 10, first), PROMISED_TABLE)


def time_curves(costs: Costs, client: httpx.Client, job_id: str, steps: int) -> None:
    for query in ("columns=loss&points=2000", "columns=loss,grad_norm,learning_rate&points=2000", "points=2000"):
        path = f"/jobs/{job_id}/metrics?{query}"
        title = f"curve of {steps:,} steps, {query}, {len(client.get(path).content):,} bytes"
        verdict("a thinned curve", costs.time_requests(title, 7, partial(client.get, path)), PROMISED_CURVE)


def page(stack: ExitStack, port: int) -> Iterator[bytes]:
    """The events of an open page."""
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60))
    yield from events(stack.enter_context(client.stream("GET", "/jobs", headers={"accept": "text/event-stream"})))


def events(answer: httpx.Response) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.iter_raw():
        *whole, rest = (rest + chunk).split(b"\n\n")
        yield from whole


def share(port: int, seconds: float) -> float:
    """Share of a core that the API takes."""
    before = cpu_of(port)
    time.sleep(seconds)
    return (cpu_of(port) - before) / seconds


def measure(port: int, pages: int, seconds: float, none: float) -> None:
    received = [0] * pages
    over = threading.Event()

    def read(number: int) -> None:
        with ExitStack() as stack:
            received_events = page(stack, port)
            next(received_events)  # the first table
            ready.wait()
            for event in received_events:
                received[number] += len(event)
                if over.is_set():
                    return

    ready = threading.Barrier(pages + 1)
    threads = [threading.Thread(target=read, args=(number,)) for number in range(pages)]
    for thread in threads:
        thread.start()
    ready.wait()
    taken = share(port, seconds)
    over.set()
    for thread in threads:
        thread.join()
    rate = sum(received) / pages / seconds
    print(
        f"{pages} open pages for {seconds:.0f} s: {taken * seconds:.2f} s of CPU, {none * seconds:.2f} s without; ",
        end="",
    )
    print(f"{rate:,.0f} bytes a second for each page")
    if pages == 1:
        verdict = "holds" if taken - none < PROMISED_SHARE else "does not hold"
        print(f"    {verdict}: one open page costs the API under {PROMISED_SHARE:.0%} of a core")


if __name__ == "__main__":
    main()
