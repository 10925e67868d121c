"""What open pages with the live table of jobs cost the API: `python -m benchmarks.job_table` prints it.

The database has 1,000 jobs, of which 4 run and record a step a second each, 16 wait, and the others have ended with a
curve of 200 steps. Printed are the CPU time of the API's process over a minute without and with open pages, and the
bytes that each page receives; then how long a first table takes, and thinned curves of a job of 100,000 steps.
`--short` is for CI.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import sqlalchemy as sa

from benchmarks.api_load import cpu_of, running_jobs
from benchmarks.many_metrics import insert_metrics
from benchmarks.servers import running_servers, serving
from benchmarks.service import metric
from store.jobs import jobs, progress
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support import many_jobs
from tests.support.jobs import LEASE, make_recipe

PROMISED_SHARE = 0.01
"""Of a core, for one open page."""
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
            long = connection.scalar(sa.text("SELECT id FROM jobs ORDER BY id LIMIT 1"))
            connection.execute(sa.text("DELETE FROM metrics WHERE job_id = :id AND step >= 10"), {"id": long})
            connection.execute(_LONG, {"job_id": long, "steps": steps})
        ours = running_jobs(sessions, 4, steps=50)
        for _ in range(16):
            waiting(sessions)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with serving(["-m", "api"], servers.environment, "/health") as port, training(sessions, ours):
            time_first_table(port)
            time_curves(port, str(long), steps)
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


def time_first_table(port: int) -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        with ExitStack() as stack:
            size = len(next(page(stack, port)))
        times.append(time.perf_counter() - began)
    print(
        f"first table of 1,000 jobs: at best {min(times) * 1e3:.0f} ms, at worst {max(times) * 1e3:.0f}, {size:,} bytes"
    )


def time_curves(port: int, job_id: str, steps: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        for query in ("columns=loss&points=2000", "columns=loss,grad_norm,learning_rate&points=2000", "points=2000"):
            times = []
            for _ in range(7):
                began = time.perf_counter()
                answer = client.get(f"/jobs/{job_id}/metrics?{query}").raise_for_status()
                times.append(time.perf_counter() - began)
            print(f"curve of {steps:,} steps, {query}: median {statistics.median(times) * 1e3:.0f} ms, ", end="")
            print(f"{len(answer.content):,} bytes")


def page(stack: ExitStack, port: int) -> Iterator[bytes]:
    """The events of an open page."""
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60))
    answer = stack.enter_context(client.stream("GET", "/jobs", headers={"accept": "text/event-stream"}))
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
            events = page(stack, port)
            next(events)  # the first table
            ready.wait()
            for event in events:
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
