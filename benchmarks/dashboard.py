"""The dashboard in a browser: `python -m benchmarks.dashboard` prints its figures.

- The first load in bytes, gzipped, and the time until the page can be used.
- The time until a table of 1,000 jobs is drawn, and the frames while it scrolls.
- The frames while five curves of 100,000 steps are compared, and while one job is watched, as 20 steps a second arrive:
  at rest, and while the reader zooms.
- What an open page costs the API, and the bytes on the wire for each new step.

The browser is Debian's Chromium without a GPU, which shares the machine with the API, PostgreSQL and the jobs. Frames
come from its trace: the page asks for one after another, so that a long gap is work that kept it from drawing. The work
of a frame is what the page's main thread does between two of them. `--short` is for CI.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, Page

from benchmarks.api_load import at, cpu_of, running_jobs
from benchmarks.frames import LIMIT, Frames, traced
from benchmarks.many_metrics import insert_curve, insert_metrics
from benchmarks.servers import running_servers, serving
from benchmarks.service import metric
from store.jobs import progress
from store.models import Job
from store.session import Sessions, make_sessions
from tests.support import chromium, many_jobs
from tests.support.jobs import LEASE
from tests.support.waiting import until

WEB = Path(__file__).parent.parent / "api" / "web"
JOBS = 1_000
CURVES = 5
STEPS_A_SECOND = 20
MOST_BYTES, MOST_LOAD, MOST_RENDER, MOST_SHARE = 150_000, 1.0, 0.3, 0.01
"""What is promised: bytes gzipped, seconds, seconds, share of a core."""

_WATCH_TABLE = """
const seen = (window.seen = { usable: 0, data: 0, drawn: 0 });
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (type, heard) {
  return add.call(this, type, (event) => {
    if (type === "jobs") seen.data ||= performance.now();
    heard(event);
  });
};
const observer = new MutationObserver(() => {
  if (document.querySelector("header nav a")) seen.usable ||= performance.now();
  if (!document.querySelector("table.jobs tbody tr[aria-rowindex]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => (seen.drawn = performance.now())));
});
observer.observe(document, { childList: true, subtree: true });
"""
"""Notes when the bar is there, when the jobs arrive, and when the first frame with them has been drawn."""


@dataclass(frozen=True)
class Size:
    steps: int
    """Of each curve, when the page opens."""
    seconds: float
    """Of each measurement."""
    rounds: int


FULL = Size(100_000, 15.0, 5)
SHORT = Size(5_000, 2.0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description="Figures of the dashboard.")
    parser.add_argument("--short", action="store_true", help="for two seconds each, and 5,000 steps")
    size = SHORT if parser.parse_args().short else FULL
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Chromium without a GPU")
    print_size()
    with running_servers() as servers:
        engine = sa.create_engine(servers.database_url)
        sessions = make_sessions(engine)
        ours = fill(engine, sessions, size)
        with serving(["-m", "api"], servers.environment, "/health") as port, chromium.browser() as browser:
            time_table(browser, port, size)
            scroll_table(browser, port, size)
            with training(sessions, ours, size.steps):
                idle = share(port, size.seconds)
                curves = f"{size.steps:,} steps"
                together = ",".join(job.id for job in ours)
                for watched in (
                    Watched(f"compare?jobs={together}", f"{CURVES} curves of {curves}", STEPS_A_SECOND),
                    Watched(f"jobs/{ours[0].id}", f"a job of {curves}", STEPS_A_SECOND // CURVES),
                    Watched("jobs", f"the table of {JOBS:,} jobs", STEPS_A_SECOND),
                ):
                    watch(browser, port, watched, size, idle)
        engine.dispose()


def print_size() -> None:
    """Of the built page: what a browser loads first."""
    zipped = sum(file.stat().st_size for file in (WEB / "assets").glob("*.gz"))
    total = zipped + (WEB / "index.html").stat().st_size
    print(f"first load: {total:,} bytes gzipped")
    judge(total <= MOST_BYTES, f"at most {MOST_BYTES:,} bytes")


def judge(holds: bool, what: str) -> None:
    print(f"    {'holds' if holds else 'does not hold'}: {what}")


def fill(engine: sa.Engine, sessions: Sessions, size: Size) -> list[Job]:
    """1,000 jobs with curves of 200 steps, of which five run, with long ones."""
    many_jobs.fill(engine, JOBS - CURVES)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM metrics"))
        insert_metrics(connection, JOBS - CURVES, 200)
    ours = running_jobs(sessions, CURVES)
    with engine.begin() as connection:
        for job in ours:
            insert_curve(connection, job.id, size.steps)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    return ours


@contextmanager
def training(sessions: Sessions, ours: list[Job], first: int) -> Iterator[None]:
    """The jobs record their steps in turn, in a thread."""
    over = threading.Event()

    def train() -> None:
        step, due = first, time.monotonic()
        while not over.is_set():
            step += 1
            for job in ours:
                with sessions.begin() as session:
                    progress.record(session, job.id, job.attempt, [metric(step)], LEASE)
                due += 1 / STEPS_A_SECOND
                over.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def opened(browser: Browser, port: int) -> Iterator[tuple[BrowserContext, Page]]:
    """A tab of a reader who was never here."""
    base = f"http://127.0.0.1:{port}"
    with browser.new_context(base_url=base, locale="en-US", viewport={"width": 1280, "height": 800}) as context:
        yield context, context.new_page()


def time_table(browser: Browser, port: int, size: Size) -> None:
    usable, arrived, drawn = [], [], []
    for _ in range(size.rounds):
        with opened(browser, port) as (_, page):
            page.add_init_script(_WATCH_TABLE)
            page.goto("/")
            until(lambda page=page: page.evaluate("window.seen.drawn"))  # type: ignore[misc]
            seen = page.evaluate("window.seen")
            usable.append(seen["usable"] / 1e3)
            arrived.append(seen["data"] / 1e3)
            drawn.append((seen["drawn"] - seen["data"]) / 1e3)
    print(f"from the navigation: usable after {ms(usable)}, {JOBS:,} jobs arrive after {ms(arrived)}")
    judge(statistics.median(usable) < MOST_LOAD, f"usable within {MOST_LOAD:.0f} s")
    print(f"{JOBS:,} jobs: drawn {ms(drawn)} after they arrive")
    judge(statistics.median(drawn) < MOST_RENDER, f"drawn within {MOST_RENDER * 1e3:.0f} ms")


def ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ({min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f}) ms"


def scroll_table(browser: Browser, port: int, size: Size) -> None:
    with opened(browser, port) as (context, page):
        page.goto("/")
        page.locator("table.jobs tbody tr[aria-rowindex]").first.wait_for()
        page.mouse.move(600, 500)

        def scroll() -> None:
            end = time.monotonic() + size.seconds
            while time.monotonic() < end:
                page.mouse.wheel(0, 400)

        print_frames("scrolling the table", traced(context, page, scroll))


@dataclass(frozen=True)
class Watched:
    path: str
    what: str
    steps: int
    """New ones a second of what it shows."""


def watch(browser: Browser, port: int, watched: Watched, size: Size, idle: float) -> None:
    """Opens a page and looks at it, then zooms; prints the frames, the API's share of a core, and the bytes."""
    path, what, steps = watched.path, watched.what, watched.steps
    with opened(browser, port) as (context, page):
        page.goto("/#/none")  # loads the page itself
        page.locator("header nav").wait_for()
        received = count_bytes(context, page)
        page.goto(f"/#/{path}")
        page.locator("canvas, table.jobs tbody tr[aria-rowindex]").first.wait_for()
        page.wait_for_timeout(1_000)
        loaded = received()
        before = cpu_of(port)
        began = time.monotonic()
        page.wait_for_timeout(size.seconds * 1e3)
        taken = (cpu_of(port) - before) / (time.monotonic() - began) - idle
        rate = (received() - loaded) / (time.monotonic() - began)
        print(f"{what}: {loaded:,} bytes to open; then {rate:,.0f} bytes a second for {steps} steps, ", end="")
        print(f"{rate / steps:.0f} for each; {taken:.2%} of a core of the API")
        judge(taken < MOST_SHARE, f"one open page costs the API under {MOST_SHARE:.0%} of a core")
        print_frames("looking at it", traced(context, page, lambda: page.wait_for_timeout(size.seconds * 1e3)))
        if page.locator("canvas").count():
            print_frames("zooming", traced(context, page, lambda: zoom(page, size.seconds)))


def zoom(page: Page, seconds: float) -> None:
    """Moves over the first plot, drags over a part of it, and goes back to the whole, again and again."""
    box = page.locator(".u-over").first.bounding_box()
    assert box is not None
    end = time.monotonic() + seconds
    y = box["y"] + box["height"] / 2
    while time.monotonic() < end:
        page.mouse.move(box["x"] + 0.2 * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.7 * box["width"], y, steps=20)
        page.mouse.up()
        page.wait_for_timeout(300)
        page.mouse.move(box["x"] + 0.4 * box["width"], y, steps=20)
        page.mouse.dblclick(box["x"] + 0.5 * box["width"], y)
        page.wait_for_timeout(300)


def count_bytes(context: BrowserContext, page: Page) -> Callable[[], int]:
    """The bytes of the answers that the page has received from now on, which the API does not compress."""
    session = context.new_cdp_session(page)
    received: dict[str, float] = {}

    def add(event: dict[str, Any]) -> None:
        received[event["requestId"]] = received.get(event["requestId"], 0) + event["dataLength"]

    def finish(event: dict[str, Any]) -> None:
        """A short answer may come without its data."""
        received[event["requestId"]] = max(received.get(event["requestId"], 0), event["encodedDataLength"])

    session.on("Network.dataReceived", add)
    session.on("Network.loadingFinished", finish)
    session.send("Network.enable")
    return lambda: int(sum(received.values()))


def share(port: int, seconds: float) -> float:
    """Of a core, that the API takes without a page."""
    before = cpu_of(port)
    time.sleep(seconds)
    return (cpu_of(port) - before) / seconds


def print_frames(what: str, frames: Frames) -> None:
    work, gaps = sorted(frames.work), sorted(frames.gaps)
    long = sum(each > LIMIT for each in work) / len(work)
    print(
        f"    {what}: {len(work)} frames; {long:.1%} of them compute for over {LIMIT} ms, p50 {at(work, 0.5):.1f}, "
        f"p95 {at(work, 0.95):.1f}, most {work[-1]:.0f}; one every {at(gaps, 0.5):.1f} ms, p95 {at(gaps, 0.95):.1f}"
    )


if __name__ == "__main__":
    main()
