"""`finetuned keys`."""

from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Url
from finetuned.cli.terminal import age, list_table, print_list, print_plain, tell
from finetuned.client import DEFAULT_URL, Client

app = typer.Typer(help="Keys of the API; for admins.", invoke_without_command=True)


@app.callback()
def list_keys(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List keys, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.keys())
    create = on_service("keys create --owner NAME", url, key)
    print_list(found, as_json, _table, f"no keys yet; make one with: {create}")


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose it is.")],
    name: Annotated[str | None, typer.Option(help="For people: what it is for.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="It opens what all owners have, and makes keys.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Make a key; prints its secret, this once."""
    with Client(url, key=key) as client:
        made = client.create_key(owner, name, admin)
    print_plain(made["secret"])
    tell(f"{made['id']} of {owner}; it is kept nowhere. Use it as FINETUNED_API_KEY, or: Authorization: Bearer KEY")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `finetuned keys` lists it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Revoke a key: it opens nothing any more."""
    with Client(url, key=key) as client:
        revoked = client.revoke_key(key_id)
    tell(f"{revoked['id']} of {revoked['owner']} is revoked")


def _table(keys: list[dict[str, Any]]) -> Table:
    table = list_table("key", "owner", "name", "secret", "admin", "age", "revoked", folding=("owner", "name"))
    for each in keys:
        revoked = f"{age(each['revoked_at'])} ago" if each["revoked_at"] else ""
        admin = "yes" if each["admin"] else ""
        table.add_row(
            each["id"],
            each["owner"],
            one_line(each["name"] or ""),
            f"...{each['hint']}",
            admin,
            age(each["created_at"]),
            revoked,
        )
    return table
