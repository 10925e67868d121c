"""The frames of a page, from a trace of Chromium."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from playwright.sync_api import BrowserContext, Page

LIMIT = 16.7
"""Milliseconds of a frame, at 60 a second."""
_CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
_ASK = "(function next() { window.asking = requestAnimationFrame(next); })()"


@dataclass(frozen=True)
class Frames:
    gaps: list[float]
    """Milliseconds from each frame to the next."""
    work: list[float]
    """Milliseconds of computing of the page's main thread in each: without what it waits for a core."""


def traced(context: BrowserContext, page: Page, act: Callable[[], None]) -> Frames:
    """The frames while `act` runs. The page asks for one after another, whether anything changes or not."""
    assert context.browser is not None
    session = context.browser.new_browser_cdp_session()
    events: list[dict[str, Any]] = []
    over: list[object] = []
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.on("Tracing.tracingComplete", lambda event: over.append(event))
    page.evaluate(_ASK)
    session.send("Tracing.start", {"traceConfig": {"includedCategories": _CATEGORIES}})
    act()
    session.send("Tracing.end")
    while not over:
        page.wait_for_timeout(50)
    page.evaluate("cancelAnimationFrame(window.asking)")
    session.detach()
    return _frames(events)


def _frames(events: list[dict[str, Any]]) -> Frames:
    drawn = [event for event in events if event["name"] == "FireAnimationFrame"]
    ((main, _),) = Counter((event["pid"], event["tid"]) for event in drawn).most_common(1)
    # One frame may run several callbacks: a frame begins where its first one does.
    starts = sorted(event["ts"] for event in drawn if (event["pid"], event["tid"]) == main)
    starts = [start for before, start in pairwise([0, *starts]) if start - before > 1_000]
    tasks = sorted(
        (event["ts"], event.get("tdur", 0))
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) == main
    )
    work = [0.0] * (len(starts) - 1)
    at = 0
    for begin, computed in tasks:
        while at < len(work) - 1 and begin >= starts[at + 1]:
            at += 1
        work[at] += computed / 1e3
    return Frames([(after - before) / 1e3 for before, after in pairwise(starts)], work)
