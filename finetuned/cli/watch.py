"""Watches a job to its end: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from functools import partial

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from contract.status import JobStatus
from finetuned.cli.job_text import JobView, draw
from finetuned.cli.next_command import on_service
from finetuned.client import Client, JobEvent

_SECONDS_BETWEEN_LINES = 2.0

OnEvent = Callable[[JobEvent], None]


def watch(client: Client, job_id: str, console: Console, on_event: OnEvent = lambda event: None) -> JobView:
    """Shows the job on `console` until it has ended; gives what was seen. Raises ServiceError."""
    job = client.job(job_id)
    command = partial(on_service, url=client.url, key=client.key)
    view = JobView(job["id"], job["name"], JobStatus.QUEUED, command=command)
    show = _show_live if console.is_terminal else _show_lines
    show(client, view, console, on_event)
    return view


def _show_live(client: Client, view: JobView, console: Console, on_event: OnEvent) -> None:
    with Live(_Drawing(view), console=console, refresh_per_second=8) as live:
        for event in client.events(view.job_id, reconnecting=live.console.log):
            view.apply(event)
            on_event(event)


def _show_lines(client: Client, view: JobView, console: Console, on_event: OnEvent) -> None:
    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    last_told, told_step = 0.0, 0
    for event in client.events(view.job_id, reconnecting=tell):
        line = view.apply(event)
        on_event(event)
        if event.type == "metric" and time.monotonic() - last_told >= _SECONDS_BETWEEN_LINES:
            last_told, told_step = time.monotonic(), view.metric["step"]
            tell(view.metric_line())
        if line is not None and not view.ended:
            tell(line)
    if view.metric and view.metric["step"] != told_step:
        tell(view.metric_line())
    tell(view.last_line())


class _Drawing:
    """Drawn anew at each refresh, as wide as the terminal is then."""

    def __init__(self, view: JobView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield draw(self._view, options.max_width)
