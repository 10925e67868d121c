"""`finetuned quotas`."""

from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import format_bytes
from finetuned.cli.options import AsJson, Key, OneAsJson, Url
from finetuned.cli.terminal import list_table, note, print_json, print_list

app = typer.Typer(help="Limits of owners, and what they use; for admins.", invoke_without_command=True)


@app.callback()
def list_quotas(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List owners by name, with what each uses of its limits."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = [each.raw for each in client.quotas.list()]
    print_list(found, as_json, _table, "no owners yet")


@app.command(name="set")
def set_limits(  # parameters: each is an option of the command
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="An owner; '*' is everybody without their own.")],
    running_jobs: Annotated[int | None, typer.Option(min=0, help="Most jobs that run at once.")] = None,
    queued_jobs: Annotated[int | None, typer.Option(min=0, help="Most jobs that wait.")] = None,
    bytes: Annotated[int | None, typer.Option(min=0, help="Most bytes of datasets, artifacts and run folders.")] = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Set the limits of an owner; for those left out, the ones of '*' apply."""
    with Client(url, key=key) as client:
        quota = client.quotas.set(owner, running_jobs=running_jobs, queued_jobs=queued_jobs, bytes=bytes).raw
    if as_json:
        print_json(quota)
        return
    running, queued, kept = _uses(quota)
    note(f"{owner} uses: running jobs {running}; queued jobs {queued}; bytes {kept}")


def _table(quotas: list[dict[str, Any]]) -> Table:
    table = list_table("owner", "running jobs", "queued jobs", "bytes", folding=("owner",))
    for each in quotas:
        table.add_row(each["owner"], *_uses(each))
    return table


def _uses(quota: dict[str, Any]) -> tuple[str, str, str]:
    """What is used of each limit, such as "1 of 2"."""
    limits, used = quota["limits"], quota["used"]
    running, queued = (_of(str(used[name]), limits[name]) for name in ("running_jobs", "queued_jobs"))
    return running, queued, _of(format_bytes(used["bytes"]), limits["bytes"] and format_bytes(limits["bytes"]))


def _of(used: str, limit: object) -> str:
    return used if limit is None else f"{used} of {limit}"
