"""What one API process bears: `python -m benchmarks.api_load` prints it.

- 500 clients stream the events of 10 running jobs, each of which tells a metric four times a second. What each client
  received is compared with what was recorded; the time is from the trainer's event to the client.
- 200 clients poll the metrics of 20 running jobs once a second, each asking for what is new since its last answer. The
  time is from when a request was due, so that a slow answer counts for the ones that it delays.
- The same 200 clients, and as many requests as 16 connections can make, on a plain FastAPI + SQLAlchemy "hello" that
  reads one row, in the same run.

PostgreSQL, the API and these clients share the machine. The jobs run as far as the rows tell; nothing trains.
`--short` is for CI: it exercises everything with few clients.
"""

import argparse
import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from benchmarks.servers import running_servers, serving
from benchmarks.service import metric
from contract.recipe import Recipe
from contract.status import JobStatus
from store.jobs import jobs, progress
from store.jobs.attempts import AttemptEnd, Retries, finish
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support.jobs import claim

MOST_WAIT = 0.25
"""Seconds that 99 of 100 answers take at most, which is promised, and no error."""
TELLS = 4.0  # a second
LEASE = timedelta(hours=1)


@dataclass(frozen=True)
class Size:
    streams: int
    streamed_jobs: int
    stream_seconds: float
    pollers: int
    polled_jobs: int
    poll_seconds: float
    history: int
    """Steps that a polled job has behind it."""
    connections: int
    full_seconds: float


FULL = Size(500, 10, 20.0, 200, 20, 20.0, 1_000, 16, 8.0)
SHORT = Size(20, 2, 2.0, 10, 2, 2.0, 100, 4, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api_load", description="Load one API process.")
    parser.add_argument("--short", action="store_true", help="few clients for two seconds")
    size = SHORT if parser.parse_args().short else FULL
    with running_servers() as servers:
        engine = sa.create_engine(servers.database_url)
        sessions = make_sessions(engine)
        with serving(["-m", "api"], servers.environment, "/health") as port:
            asyncio.run(stream(port, sessions, size))
            metrics = asyncio.run(poll_metrics(port, sessions, size))
        uvicorn = ["-m", "uvicorn", "benchmarks.hello:app", "--log-level=warning"]
        with serving(uvicorn, servers.environment, "/hello") as port:
            hello = asyncio.run(poll_hello(port, size))
        engine.dispose()
    print(f"    metrics to hello: p99 {metrics.p99 / hello.p99:.2f} times, rate {metrics.rate / hello.rate:.2f} times")


def running_jobs(sessions: Sessions, count: int, steps: int = 0) -> list[Job]:
    found = []
    for _ in range(count):
        with sessions.begin() as session:
            jobs.create(session, Recipe.model_validate({"model": "m", "dataset": "d"}))
            job = claim(session, LEASE)
            assert job is not None
            if steps:
                reported = [metric(step) for step in range(1, steps + 1)]
                progress.record(session, job.id, job.attempt, reported, LEASE)
        found.append(job)
    return found


@contextmanager
def telling(sessions: Sessions, ours: list[Job], first: int) -> Iterator[dict[str, int]]:
    """Metrics of all the jobs, one after another, in a thread; gives the last step of each."""
    reported = {job.id: first - 1 for job in ours}
    over = threading.Event()

    def tell() -> None:
        due = time.monotonic()
        while not over.is_set():
            for job in ours:
                step = reported[job.id] + 1
                with sessions.begin() as session:
                    progress.record(session, job.id, job.attempt, [metric(step)], LEASE)
                reported[job.id] = step
                due += 1 / TELLS / len(ours)
                over.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield reported
    finally:
        over.set()
        thread.join()


@dataclass
class Seen:
    steps: list[int] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


async def stream(port: int, sessions: Sessions, size: Size) -> None:
    ours = running_jobs(sessions, size.streamed_jobs)
    watched = [ours[number % size.streamed_jobs] for number in range(size.streams)]
    began = time.perf_counter()
    ready = asyncio.Barrier(size.streams + 1)
    clients = [asyncio.create_task(watch(port, job.id, ready)) for job in watched]
    await ready.wait()
    print(f"{size.streams} clients stream the events of {size.streamed_jobs} jobs, {TELLS:.0f} a second of each")
    print(f"    all are connected after {time.perf_counter() - began:.1f} s")
    cpu = cpu_of(port)
    with telling(sessions, ours, 1) as reported:
        await asyncio.sleep(size.stream_seconds)
    busy = (cpu_of(port) - cpu) / size.stream_seconds
    for job in ours:
        with sessions.begin() as session:
            finish(
                session, job.id, job.attempt, AttemptEnd(JobStatus.SUCCEEDED), Retries(0, timedelta(0), timedelta(0))
            )
    seen = await asyncio.gather(*clients)
    wrong = sum(each.steps != list(range(1, reported[job.id] + 1)) for each, job in zip(seen, watched, strict=True))
    requested = [set(range(1, reported[job.id] + 1)) for job in watched]
    missing = sum(len(steps - {*each.steps}) for each, steps in zip(seen, requested, strict=True))
    times = sorted(late for each in seen for late in each.late)
    print(
        f"    {len(times)} events received, {missing} missing, {wrong} clients with anything missing, twice or astray"
    )
    print(
        f"    {'does not hold' if wrong else 'holds'}: {size.streams} streams from one process, each with every event"
    )
    print(
        f"    p50 {at(times, 0.5) * 1e3:.0f} ms, p99 {at(times, 0.99) * 1e3:.0f} ms; the API took {busy:.2f} of a core"
    )


_METRIC = re.compile(rb"event: metric\ndata: ({.*?})\nid: ")


async def watch(port: int, job_id: str, ready: asyncio.Barrier) -> Seen:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    text = await reader.readuntil(b"\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 200"), text
    await reader.readuntil(b"event: ")
    await ready.wait()
    seen, rest = Seen(), b""
    while not rest.endswith(b"0\r\n\r\n"):
        chunk = await reader.read(1 << 16)
        now = time.time()
        rest += chunk
        end = 0
        for found in _METRIC.finditer(rest):
            data = json.loads(found[1])
            seen.steps.append(data["step"])
            seen.late.append(now - data["time"])
            end = found.end()
        rest = rest[end:]
        assert chunk, "the stream broke off"
    writer.close()
    return seen


@dataclass
class Polled:
    p99: float
    rate: float


async def poll_metrics(port: int, sessions: Sessions, size: Size) -> Polled:
    ours = running_jobs(sessions, size.polled_jobs, size.history)
    since = dict.fromkeys(range(size.pollers), size.history)

    def path(client: int) -> str:
        return f"/jobs/{ours[client % size.polled_jobs].id}/metrics?since_step={since[client]}"

    def note(client: int, body: bytes) -> None:
        steps = json.loads(body)["columns"]["step"]
        if steps:
            since[client] = steps[-1]

    with telling(sessions, ours, size.history + 1):
        times, errors = await poll(port, size, path, note)
        rate = await as_many_as_can_be(port, size, path)
    print(f"{size.pollers} clients poll the metrics of {size.polled_jobs} running jobs once a second")
    show(times, errors, rate, size)
    p99 = at(times, 0.99)
    verdict = "holds" if p99 < MOST_WAIT and not errors else "does not hold"
    print(f"    {verdict}: p99 under {MOST_WAIT * 1e3:.0f} ms, 0 errors")
    return Polled(p99, rate)


async def poll_hello(port: int, size: Size) -> Polled:
    times, errors = await poll(port, size, lambda client: "/hello", lambda client, body: None)
    rate = await as_many_as_can_be(port, size, lambda client: "/hello")
    print(f"{size.pollers} clients poll a plain FastAPI + SQLAlchemy hello once a second")
    show(times, errors, rate, size)
    return Polled(at(times, 0.99), rate)


def show(times: list[float], errors: int, rate: float, size: Size) -> None:
    print(f"    {len(times)} answers, {errors} errors; p50 {at(times, 0.5) * 1e3:.0f} ms, ", end="")
    print(f"p99 {at(times, 0.99) * 1e3:.0f} ms, max {times[-1] * 1e3:.0f} ms")
    print(f"    {rate:.0f} a second where {size.connections} connections ask without a pause")


async def poll(
    port: int, size: Size, path: Callable[[int], str], note: Callable[[int, bytes], None]
) -> tuple[list[float], int]:
    """Sorted times of all answers, and the number of errors."""
    times: list[float] = []
    errors = 0
    cpu = cpu_of(port)

    async def one(client: int) -> None:
        nonlocal errors
        connection = await asyncio.open_connection("127.0.0.1", port)
        due = began + client / size.pollers
        while due < began + size.poll_seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            status, body = await ask(connection, path(client))
            times.append(time.perf_counter() - due)
            if status == 200:
                note(client, body)
            else:
                errors += 1
            due += 1
        connection[1].close()

    began = time.perf_counter() + 0.5
    await asyncio.gather(*map(one, range(size.pollers)))
    print(f"    {(cpu_of(port) - cpu) / len(times) * 1e3:.1f} ms of a core for each answer")
    return sorted(times), errors


async def as_many_as_can_be(port: int, size: Size, path: Callable[[int], str]) -> float:
    """Answers a second."""
    count = 0
    end = time.perf_counter() + size.full_seconds

    async def one(client: int) -> None:
        nonlocal count
        connection = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            status, _ = await ask(connection, path(client))
            count += status == 200
        connection[1].close()

    await asyncio.gather(*map(one, range(size.connections)))
    return count / size.full_seconds


async def ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> tuple[int, bytes]:
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert length is not None, head
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]))


def at(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(len(times) * share))]


def cpu_of(port: int) -> float:
    """Seconds that the process that listens there has computed."""
    fields = Path(f"/proc/{process_at(port)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_at(port: int) -> int:
    """The id of the process that listens there."""
    return next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _listens(pid, port))


def _listens(pid: int, port: int) -> bool:
    try:
        return f"FINETUNED_PORT={port}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main()
