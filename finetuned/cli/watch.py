"""Watches a job to its end: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from functools import partial

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from finetuned import Client
from finetuned.cli.job_text import JobDisplay, draw
from finetuned.cli.next_command import on_service
from finetuned.events import JobEvent
from finetuned.status import Status

_SECONDS_BETWEEN_LINES = 2.0

OnEvent = Callable[[JobEvent], None]


def watch(client: Client, job_id: str, console: Console, on_event: OnEvent = lambda event: None) -> JobDisplay:
    """Shows a job on `console` until it has ended; gives the final view. Raises ServiceError."""
    job = client.jobs.get(job_id)
    command = partial(on_service, url=client.url, key=client.key)
    view = JobDisplay(job.id, job.name, Status.QUEUED, command=command)
    show = _show_live if console.is_terminal else _show_lines
    show(client, view, console, on_event)
    return view


def _show_live(client: Client, view: JobDisplay, console: Console, on_event: OnEvent) -> None:
    with Live(_Drawing(view), console=console, refresh_per_second=8) as live:
        for event in client.jobs.at(view.job_id).watch(reconnecting=live.console.log):
            view.apply(event)
            on_event(event)


def _show_lines(client: Client, view: JobDisplay, console: Console, on_event: OnEvent) -> None:
    def show(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    shown_at, shown_step = 0.0, 0
    for event in client.jobs.at(view.job_id).watch(reconnecting=show):
        line = view.apply(event)
        on_event(event)
        if event.type == "metric" and time.monotonic() - shown_at >= _SECONDS_BETWEEN_LINES:
            shown_at, shown_step = time.monotonic(), view.metric["step"]
            show(view.metric_line())
        if line is not None and not view.ended:
            show(line)
    if view.metric and view.metric["step"] != shown_step:
        show(view.metric_line())
    show(view.last_line())


class _Drawing:
    """Draws the view again at each refresh, at the terminal's current width."""

    def __init__(self, view: JobDisplay) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield draw(self._view, options.max_width)
