"""`finetuned sweep`."""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from typer.core import TyperGroup

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.exit_codes import INTERRUPTED
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Limit, OneAsJson, Owner, Url, owner_or_user
from finetuned.cli.sweep_text import list_of_sweeps, sweep_lines, sweep_table
from finetuned.cli.terminal import err, fail, note, out, print_json, print_list, print_plain
from finetuned.status import TERMINAL, Status

_POLL_SECONDS = 2.0
_DEFAULT = "submit"


class _Group(TyperGroup):
    """Takes `sweep RECIPE.json ...` for `sweep submit RECIPE.json ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Jobs that try values of a recipe's fields. `sweep RECIPE.json` is short for `sweep submit RECIPE.json`.",
    cls=_Group,
    no_args_is_help=True,
)
SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's id.")]


@app.command()
def submit(  # parameters: each is an option of the command
    recipe: Annotated[str, typer.Argument(metavar="RECIPE.json", help="File of the recipe; - is stdin.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE,...", help="Values of a field, such as adapter.r=8,16; repeatable."),
    ] = None,
    entries: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help='JSON list of the values of each job, such as [{"adapter.r": 8}].'),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people; default: the recipe's.")] = None,
    owner: Owner = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the jobs until all have ended.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Submit even if it will not fit into memory.")] = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job for each combination of values and print the sweep's id."""
    body = _body(recipe, grid or [], entries, name)
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        sweep = client.sweeps.create(body, force).raw
        if not as_json:
            print_plain(sweep["id"])
        if watch:
            sweep = _watch(client, sweep)
        else:
            show_it = on_service(f"sweep show {sweep['id']}", url, key)
            note(f"{len(sweep['jobs'])} jobs; see them with: {show_it}")
    if as_json:
        print_json(sweep)
    if watch and any(job["status"] != Status.SUCCEEDED for job in sweep["jobs"]):
        raise typer.Exit(1)


@app.command()
def show(sweep: SweepId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show the results of a sweep; the best job is marked."""
    with Client(url, key=key) as client:
        found = client.sweeps.get(sweep).raw
    if as_json:
        print_json(found)
        return
    out.print(sweep_table(found), markup=False, highlight=False)
    if found["best"] is not None:
        download = on_service(f"download {found['best']}", url, key)
        note(f"* is the best; download it with: {download}")


@app.command(name="list")
def list_sweeps(limit: Limit = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List sweeps, newest first."""
    with Client(url, key=key) as client:
        found = [each.raw for each in islice(client.sweeps.list(), limit)]
    print_list(found, as_json, list_of_sweeps, "no sweeps yet")


@app.command()
def stop(  # parameters: each is an option of the command
    sweep: SweepId,
    keep: Annotated[list[str] | None, typer.Option(metavar="JOB", help="A job that goes on; repeatable.")] = None,
    keep_best: Annotated[bool, typer.Option("--keep-best", help="The best job so far goes on.")] = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Cancel the jobs of a sweep that have not ended."""
    with Client(url, key=key) as client:
        kept = [*(keep or []), *([_best(client, sweep)] if keep_best else [])]
        found = client.sweeps.cancel(sweep, kept).raw
    if as_json:
        print_json(found)
    else:
        waits = any(job["status"] not in TERMINAL and job["id"] not in kept for job in found["jobs"])
        note("\n".join([*sweep_lines(found), *(["running jobs save first"] if waits else [])]))


def _best(client: Client, sweep_id: str) -> str:
    best: str | None = client.sweeps.get(sweep_id).best
    if best is None:
        fail("--keep-best: no job of the sweep has a loss yet; name one with --keep")
    return best


def _body(recipe: str, grid: list[str], entries: Path | None, name: str | None) -> bytes:
    """The request. The files' own text is in it, so that the service refuses a field that is given twice there."""
    parts = {"recipe": _read(recipe)}
    if name is not None:
        parts["name"] = json.dumps(name)
    if grid:
        parts["grid"] = json.dumps(_grid(grid))
    if entries is not None:
        parts["list"] = _read(str(entries))
    return "{{{}}}".format(", ".join(f'"{field}": {value}' for field, value in parts.items())).encode()


def _read(file: str) -> str:
    """The text of a JSON file."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
        json.loads(text)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except ValueError as error:
        fail(f"{file} is not JSON: {error}")
    return text


def _grid(options: list[str]) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    for option in options:
        field, equals, values = option.partition("=")
        if not (field and equals and values):
            fail(f"--grid: got {option}; give FIELD=VALUE,..., such as adapter.r=8,16")
        if field in grid:
            fail(f"--grid: got {field} twice; give all its values in one option")
        grid[field] = _values(option, values)
    return grid


def _values(option: str, text: str) -> list[Any]:
    """The values between commas, each as JSON where it is JSON, else as text."""
    try:
        values: list[Any] = json.loads(f"[{text}]")
        return values
    except ValueError:
        if any(mark in text for mark in '"[]{}'):
            fail(f'--grid: got {option}; write lists and quoted texts as JSON, such as FIELD=["q_proj"],"all-linear"')
        return [_value(part) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _watch(client: Client, sweep: dict[str, Any]) -> dict[str, Any]:
    """The sweep once all its jobs have ended; shows it on stderr until then."""
    try:
        return _show_live(client, sweep) if err.is_terminal else _show_lines(client, sweep)
    except KeyboardInterrupt:
        again = on_service(f"sweep show {sweep['id']}", client.url, client.key)
        note(f"the jobs continue; see them with: {again}")
        raise typer.Exit(INTERRUPTED) from None


def _show_live(client: Client, sweep: dict[str, Any]) -> dict[str, Any]:
    with Live(sweep_table(sweep), console=err, auto_refresh=False) as live:
        while not _ended(sweep):
            time.sleep(_POLL_SECONDS)
            sweep = client.sweeps.get(sweep["id"]).raw
            live.update(sweep_table(sweep), refresh=True)
    return sweep


def _show_lines(client: Client, sweep: dict[str, Any]) -> dict[str, Any]:
    shown: set[str] = set()
    while True:
        for line in sweep_lines(sweep):
            if line not in shown:
                note(line)
        shown = set(sweep_lines(sweep))
        if _ended(sweep):
            return sweep
        time.sleep(_POLL_SECONDS)
        sweep = client.sweeps.get(sweep["id"]).raw


def _ended(sweep: dict[str, Any]) -> bool:
    return all(job["status"] in TERMINAL for job in sweep["jobs"])
