"""`finetuned secrets`."""

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, OneAsJson, Owner, Url, owner_or_user
from finetuned.cli.terminal import age, list_table, note, print_json, print_list

app = typer.Typer(help="Keys of trackers and hubs, which recipes name.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, _ or -.")]


@app.callback()
def list_secrets(
    ctx: typer.Context, as_json: AsJson = False, owner: Owner = None, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """List secrets by name. Nobody can read their values."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        found = [each.raw for each in client.secrets.list()]
    store = on_service("secrets set NAME", url, key)
    print_list(found, as_json, _table, f"no secrets yet; store one with: {store}")


@app.command(name="set")
def set_secret(
    name: Name, as_json: OneAsJson = False, owner: Owner = None, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Store a secret, in place of an earlier one; its value is asked for, or read from a pipe."""
    # Never an argument: other users of the machine see those, and the shell keeps them.
    value = typer.prompt("Value", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        stored = client.secrets.set(name, value)
    if as_json:
        print_json(stored.raw)
        return
    note(f"{stored.name} of {stored.owner} is stored")


@app.command()
def delete(
    name: Name, as_json: OneAsJson = False, owner: Owner = None, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Delete a secret; what names it fails from then on."""
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        client.secrets.delete(name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        note(f"{name} is deleted")


def _table(secrets: list[dict[str, Any]]) -> Table:
    table = list_table("secret", "owner", "changed", folding=("owner",))
    for each in secrets:
        table.add_row(each["name"], each["owner"], f"{age(each['updated_at'])} ago")
    return table
