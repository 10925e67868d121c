"""`finetuned show`."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from finetuned import Client, Job
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import format_seconds, one_line, rewards, title
from finetuned.cli.jobs import JobId
from finetuned.cli.next_command import on_service
from finetuned.cli.options import Key, OneAsJson, Url
from finetuned.cli.terminal import age, note, out, print_json
from finetuned.objects.jobs import Progress
from finetuned.status import Status

_NEXT: dict[str, str] = {
    Status.QUEUED: "watch",
    Status.RUNNING: "watch",
    Status.PAUSED: "resume",
    Status.SUCCEEDED: "download",
    Status.FAILED: "retry",
    Status.CANCELLED: "retry",
}


def show(job: JobId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a job: its recipe in short, how far it is, and what went wrong."""
    with Client(url, key=key) as client:
        found = client.jobs.get(job)
    if as_json:
        print_json(found.raw)
        return
    out.print(title(found.status, found.name, found.id))
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", justify="right", min_width=8)
    rows.add_column(overflow="fold")
    for label, text in _rows(found):
        rows.add_row(label, Text(one_line(text)))
    out.print(rows)
    if (words := _NEXT.get(found.status)) is not None:
        note(f"next: {on_service(f'{words} {found.id}', url, key)}")


def _rows(job: Job) -> Iterator[tuple[str, str]]:
    recipe = job.recipe
    yield "owner", job.owner or ""
    yield "model", str(recipe.get("model", ""))
    yield "dataset", _dataset(recipe.get("dataset"))
    yield "times", ", ".join(_times(job))
    if job.queue is not None:
        yield "waits", f"number {job.queue.position} in the queue. {job.queue.reason}"
    if job.devices:
        yield "runs on", ", ".join(f"{each.worker}:{each.number}" for each in job.devices)
    if job.progress is not None:
        progress = job.progress
        yield "step", f"{progress.step}/{progress.total_steps or '?'}, epoch {progress.epoch:.2f}"
        yield "loss", _losses(progress)
        if not job.ended and progress.eta_seconds is not None:
            yield "left", format_seconds(progress.eta_seconds)
    if job.attempt > 1:
        yield "attempts", f"{job.attempt}, {job.retries} of them after a failure"
    for tracker in job.tracking:
        yield tracker.type, f"{tracker.status}{f': {tracker.error}' if tracker.error else ''}"
    if job.failure is not None:
        yield "failure", f"{job.failure.code}: {job.failure.message}"


def _dataset(given: Any) -> str:
    return str(given.get("filename") or given.get("path") or "") if isinstance(given, dict) else str(given)


def _times(job: Job) -> Iterator[str]:
    for words, time in (("created", job.created_at), ("started", job.started_at), ("ended", job.finished_at)):
        if time is not None:
            yield f"{words} {age(time.isoformat())} ago"


def _losses(progress: Progress) -> str:
    named = (("", progress.loss), ("evaluation ", progress.eval_loss))
    losses = ", ".join(f"{name}{loss:.4f}" for name, loss in named if loss is not None)
    return losses + rewards(progress.reward_accuracy, progress.reward_margin)
