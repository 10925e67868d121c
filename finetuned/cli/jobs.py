"""`finetuned submit`, and the commands on a job."""

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Limit, Owner, Url, owner_or_user
from finetuned.cli.plan_text import show_plan
from finetuned.cli.terminal import age, err, fail, list_table, note, out, print_json, print_list, print_plain
from finetuned.cli.watch import watch as watch_job
from finetuned.client import Client, Job
from finetuned.status import Status

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE.json", help="File of the recipe; - is stdin.")]


def submit(  # parameters: each is an option of the command
    recipe: RecipeFile,
    owner: Owner = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Submit even if it will not fit into memory.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job and print its id."""
    body = _read_recipe(recipe)
    with Client(url, owner_or_user(owner, key), key) as client:
        job = client.submit(body, force)
        print_plain(job["id"])
        if watch:
            _watch(client, job["id"], err)
        else:
            again = on_service(f"watch {job['id']}", url, key)
            note(f"{job['status']}; watch it with: {again}")


def plan(
    recipe: RecipeFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's JSON.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Estimate memory, time and disk of a recipe, without training."""
    body = _read_recipe(recipe)
    with Client(url, key=key) as client:
        found = client.plan(body)
    if as_json:
        print_json(found)
    else:
        show_plan(found, out)


def _read_recipe(recipe: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if recipe == "-" else Path(recipe).read_bytes()
    except OSError as error:
        fail(f"cannot read {recipe}: {error.strerror}")


def watch(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Watch a job until it ends; exit code 0 if it succeeded."""
    with Client(url, key=key) as client:
        _watch(client, job, out)


def list_jobs(limit: Limit = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List jobs, newest first."""
    with Client(url, key=key) as client:
        jobs = list(islice(client.list_jobs(), limit))
    print_list(jobs, as_json, _job_table, "no jobs yet")


def show(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print a job as JSON."""
    with Client(url, key=key) as client:
        print_json(client.get_job(job))


def cancel(
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="Give it no time to save.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Cancel a job."""
    with Client(url, key=key) as client:
        status = client.cancel(job, force)["status"]
    note(status if status == Status.CANCELLED else f"{status}; it will be cancelled once its processes are gone")


def pause(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Save a job's state and pause it."""
    with Client(url, key=key) as client:
        status = client.pause(job)["status"]
    state = status if status == Status.PAUSED else f"{status}; it will be paused once it has saved"
    note(f"{state}; resume it with: {on_service(f'resume {job}', url, key)}")


def resume(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Resume a paused job from its last training checkpoint."""
    with Client(url, key=key) as client:
        note(f"{client.resume(job)['status']}; watch it with: {on_service(f'watch {job}', url, key)}")


def retry(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Retry a failed or cancelled job from its last training checkpoint."""
    with Client(url, key=key) as client:
        note(f"{client.retry(job)['status']}; watch it with: {on_service(f'watch {job}', url, key)}")


def delete(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a job that has ended, with its adapter and all its files."""
    with Client(url, key=key) as client:
        client.delete_job(job)
    note(f"{job} is deleted")


def download(
    job: JobId,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to unpack it in; default: a folder named JOB.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The checkpoint with the lowest evaluation loss.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download a job's adapter and print its folder."""
    with Client(url, key=key) as client:
        print_plain(str(client.download(job, folder or Path(job), best)))


def export(
    job: JobId,
    source: Annotated[
        str, typer.Option("--source", help="Artifact of the job: adapter, a checkpoint or the best one.")
    ] = "adapter.tar",
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Merge a job's adapter into its base model; waits, and prints the artifact's name."""
    with Client(url, key=key) as client:
        made = client.create_export(job, source)
        while made["status"] in ("queued", "running"):
            time.sleep(1)
            made = client.get_export(job, made["id"])
    if made["failure"] is not None:
        fail(made["failure"]["message"])
    print_plain(made["artifact"])


def logs(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print the log of a job's trainer."""
    with Client(url, key=key) as client:
        print_plain(client.read_artifact(job, "trainer.log"))


def _watch(client: Client, job_id: str, console: Console) -> None:
    try:
        view = watch_job(client, job_id, console)
    except KeyboardInterrupt:
        again = on_service(f"watch {job_id}", client.url, client.key)
        note(f"the job continues; watch it again with: {again}")
        raise typer.Exit(130) from None
    if view.status != Status.SUCCEEDED:
        raise typer.Exit(1)


def _job_table(jobs: list[Job]) -> Table:
    table = list_table("job", "name", "owner", "status", "step", "loss", "age", folding=("name", "owner"))
    for job in jobs:
        progress = job["progress"]
        steps = f"{progress['step']}/{progress['total_steps'] or '?'}" if progress else ""
        loss = f"{progress['loss']:.4f}" if progress else ""
        status = f"{job['status']} #{job['queue']['position']}" if job["queue"] else job["status"]
        table.add_row(job["id"], one_line(job["name"] or ""), job["owner"], status, steps, loss, age(job["created_at"]))
    return table
