"""The commands on a job."""

import json
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import EXPORT_FORMATS, AsJson, Key, Limit, OneAsJson, Url
from finetuned.cli.terminal import age, fail, list_table, note, out, print_json, print_list, print_plain
from finetuned.cli.watch import watch as watch_job
from finetuned.events import JobEvent
from finetuned.status import Status

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


def watch(
    job: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Watch a job until it ends; exit code 0 if it succeeded."""
    with Client(url, key=key) as client:
        if not as_json:
            watch_to_the_end(client, job, out)
            return
        status = ""
        for event in client.jobs.at(job).watch(reconnecting=note):
            status = event.data["status"] if event.type == "status" else status
            print_plain(json.dumps(asdict(event)))
        if status != Status.SUCCEEDED:
            raise typer.Exit(1)


def list_jobs(limit: Limit = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List jobs, newest first."""
    with Client(url, key=key) as client:
        jobs = [job.raw for job in islice(client.jobs.list(), limit)]
    print_list(jobs, as_json, _job_table, "no jobs yet")


def cancel(
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="Give it no time to save.")] = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Cancel a job."""
    with Client(url, key=key) as client:
        found = client.jobs.at(job).cancel(force)
    status = found.status
    if as_json:
        print_json(found.raw)
        return
    note(status if status == Status.CANCELLED else f"{status}; it will be cancelled once its processes are gone")


def pause(job: JobId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Save a job's state and pause it."""
    with Client(url, key=key) as client:
        found = client.jobs.at(job).pause()
    status = found.status
    if as_json:
        print_json(found.raw)
        return
    state = status if status == Status.PAUSED else f"{status}; it will be paused once it has saved"
    note(f"{state}; resume it with: {on_service(f'resume {job}', url, key)}")


def resume(job: JobId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Resume a paused job from its last training checkpoint."""
    with Client(url, key=key) as client:
        found = client.jobs.at(job).resume()
    if as_json:
        print_json(found.raw)
    else:
        note(f"{found.status}; watch it with: {on_service(f'watch {job}', url, key)}")


def retry(job: JobId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Retry a failed or cancelled job from its last training checkpoint."""
    with Client(url, key=key) as client:
        found = client.jobs.at(job).retry()
    if as_json:
        print_json(found.raw)
    else:
        note(f"{found.status}; watch it with: {on_service(f'watch {job}', url, key)}")


def delete(job: JobId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a job that has ended, with its adapter and all its files."""
    with Client(url, key=key) as client:
        client.jobs.at(job).delete()
    if as_json:
        print_json({"id": job, "deleted": True})
    else:
        note(f"{job} is deleted")


def download(  # parameters: each is an option of the command
    job: JobId,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to unpack it in; default: a folder named JOB.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint of the best evaluation.")] = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download a job's adapter and print its folder."""
    with Client(url, key=key) as client:
        unpacked = str(client.jobs.at(job).download(folder or Path(job), best))
    if as_json:
        print_json({"job_id": job, "folder": unpacked})
    else:
        print_plain(unpacked)


def export(  # parameters: each is an option of the command
    job: JobId,
    source: Annotated[
        str, typer.Option("--source", help="Artifact of the job: adapter, a checkpoint or the best one.")
    ] = "adapter.tar",
    format: Annotated[str, typer.Option("--format", help=EXPORT_FORMATS)] = "merged",
    shard_size: Annotated[
        str | None, typer.Option("--shard-size", help="Largest file of a merged model: 500MB, 2GB.")
    ] = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Export a job's adapter in another format; waits, and prints the artifact's name."""
    with Client(url, key=key) as client:
        made = client.jobs.at(job).export(source, format, shard_size)
    if as_json:
        print_json(made.raw)
    if made.failure is not None:
        fail(made.failure.message)
    if not as_json:
        print_plain(made.artifact or "")


def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print messages and statuses as they come, until the job has ended.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line as a JSON object.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Print the log of a job's trainer."""
    with Client(url, key=key) as client:
        named = client.jobs.at(job)
        if follow:
            for event in named.watch():
                if (line := _log_line(event)) is not None:
                    print_plain(json.dumps(asdict(event)) if as_json else line)
            return
        text = named.read_artifact("trainer.log")
    if as_json:
        for line in text.splitlines():
            print_plain(json.dumps({"line": line}))
    else:
        print_plain(text)


def _log_line(event: JobEvent) -> str | None:
    """A log event or a change of status as a line; None for other events."""
    if event.type not in ("log", "status"):
        return None
    text = event.data["status"] if event.type == "status" else event.data["message"]
    level = "" if event.data.get("level", "info") == "info" else f"{event.data['level']}: "
    return f"{datetime.fromtimestamp(event.time):%H:%M:%S}  {level}{one_line(text)}"


def watch_to_the_end(client: Client, job_id: str, console: Console) -> None:
    try:
        view = watch_job(client, job_id, console)
    except KeyboardInterrupt:
        again = on_service(f"watch {job_id}", client.url, client.key)
        note(f"the job continues; watch it again with: {again}")
        raise typer.Exit(130) from None
    if view.status != Status.SUCCEEDED:
        raise typer.Exit(1)


def _job_table(jobs: list[dict[str, Any]]) -> Table:
    # Names need the room where all jobs are of one owner.
    owner = ["owner"] if len({job["owner"] for job in jobs}) > 1 else []
    table = list_table("job", "name", *owner, "status", "step", "loss", "age", folding=("name", "owner"))
    for job in jobs:
        progress = job["progress"]
        steps = f"{progress['step']}/{progress['total_steps'] or '?'}" if progress else ""
        loss = f"{progress['loss']:.4f}" if progress else ""
        status = f"{job['status']} #{job['queue']['position']}" if job["queue"] else job["status"]
        whose = [job[name] for name in owner]
        table.add_row(job["id"], one_line(job["name"] or ""), *whose, status, steps, loss, age(job["created_at"]))
    return table
