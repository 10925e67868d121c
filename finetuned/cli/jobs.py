"""`finetuned submit`, and what is done with a job from then on."""

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contract.status import JobStatus
from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Newest, Owner, Url, owner_or_user
from finetuned.cli.plan_text import show_plan
from finetuned.cli.terminal import age, err, fail, list_table, out, print_json, print_list, print_plain, tell
from finetuned.cli.watch import watch as watch_job
from finetuned.client import DEFAULT_URL, Client, Job

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE.json", help="A recipe's file; - is stdin.")]


def submit(
    recipe: RecipeFile,
    owner: Owner = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job to its end.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where it cannot fit into memory.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job; prints its id."""
    body = _read_recipe(recipe)
    with Client(url, owner_or_user(owner, key), key) as client:
        job = client.submit(body, force)
        print_plain(job["id"])
        if watch:
            _watch(client, job["id"], err)
        else:
            again = on_service(f"watch {job['id']}", url, key)
            tell(f"{job['status']}; watch it with: {again}")


def plan(
    recipe: RecipeFile,
    as_json: Annotated[bool, typer.Option("--json", help="As the service gives it.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Tell what a recipe would take, without training it."""
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
    """Watch a job to its end; exit code 0 if it succeeded."""
    with Client(url, key=key) as client:
        _watch(client, job, out)


def list_jobs(limit: Newest = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List jobs, newest first."""
    with Client(url, key=key) as client:
        jobs = list(islice(client.jobs(), limit))
    print_list(jobs, as_json, _job_table, "no jobs yet")


def show(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print a job as JSON."""
    with Client(url, key=key) as client:
        print_json(client.job(job))


def cancel(
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="Leave it no time to save.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Cancel a job."""
    with Client(url, key=key) as client:
        status = client.cancel(job, force)["status"]
    tell(status if status == JobStatus.CANCELLED else f"{status}; cancelled as soon as its processes are gone")


def pause(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Have a job save and set it aside."""
    with Client(url, key=key) as client:
        status = client.pause(job)["status"]
    state = status if status == JobStatus.PAUSED else f"{status}; paused as soon as it has saved"
    tell(f"{state}; go on with: {on_service(f'resume {job}', url, key)}")


def resume(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a paused job go on from where it saved."""
    with Client(url, key=key) as client:
        tell(f"{client.resume(job)['status']}; watch it with: {on_service(f'watch {job}', url, key)}")


def retry(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a job that has failed or was cancelled go on from where it last saved."""
    with Client(url, key=key) as client:
        tell(f"{client.retry(job)['status']}; watch it with: {on_service(f'watch {job}', url, key)}")


def download(
    job: JobId,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to unpack it; default: a folder named JOB.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="What was saved with the lowest evaluation loss.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Download a job's adapter; prints its folder."""
    with Client(url, key=key) as client:
        print_plain(str(client.download(job, folder or Path(job), best)))


def export(
    job: JobId,
    source: Annotated[
        str, typer.Option("--source", help="Of the job's artifacts: a checkpoint, or best.tar.gz.")
    ] = "adapter.tar.gz",
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Merge what a job has saved into its base model; waits, and prints the artifact's name."""
    with Client(url, key=key) as client:
        made = client.export(job, source)
        while made["status"] in ("queued", "running"):
            time.sleep(1)
            made = client.export_of(job, made["id"])
    if made["failure"] is not None:
        fail(made["failure"]["message"])
    print_plain(made["artifact"])


def logs(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print the log of a job's trainer."""
    with Client(url, key=key) as client:
        print_plain(client.artifact_text(job, "trainer.log"))


def _watch(client: Client, job_id: str, console: Console) -> None:
    try:
        view = watch_job(client, job_id, console)
    except KeyboardInterrupt:
        again = on_service(f"watch {job_id}", client.url, client.key)
        tell(f"the job goes on; see it again with: {again}")
        raise typer.Exit(130) from None
    if view.status != JobStatus.SUCCEEDED:
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
