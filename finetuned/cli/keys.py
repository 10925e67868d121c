"""`finetuned keys`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, OneAsJson, Url
from finetuned.cli.terminal import age, list_table, note, print_json, print_list, print_plain

app = typer.Typer(help="API keys; for admins.", invoke_without_command=True)


@app.callback()
def list_keys(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List keys, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = [each.raw for each in client.keys.list()]
    create = on_service("keys create --owner NAME", url, key)
    print_list(found, as_json, _table, f"no keys yet; create one with: {create}")


@app.command()
def create(  # parameters: each is an option of the command
    owner: Annotated[str, typer.Option(help="Owner that the key acts for.")],
    name: Annotated[str | None, typer.Option(help="Note for people, such as the key's purpose.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Act for all owners, and manage keys.")] = False,
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="Days until it expires; default: never.")] = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Create a key and print its secret, which is shown only now."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Client(url, key=key) as client:
        made = client.keys.create(owner, name, admin, expires_at)
    if as_json:
        print_json(made.raw)
        return
    print_plain(made.secret or "")
    note(f"{made.id} of {owner}; use the secret, which nobody stores, in FINETUNED_API_KEY or as a bearer token")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `finetuned keys` lists it.")],
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Revoke a key, at once and for ever."""
    with Client(url, key=key) as client:
        revoked = client.keys.revoke(key_id)
    if as_json:
        print_json(revoked.raw)
    note(f"{revoked.id} of {revoked.owner} is revoked")


def _table(keys: list[dict[str, Any]]) -> Table:
    table = list_table("key", "owner", "name", "secret", "admin", "age", "status", folding=("owner", "name"))
    for each in keys:
        admin = "yes" if each["admin"] else ""
        table.add_row(
            each["id"],
            each["owner"],
            one_line(each["name"] or ""),
            f"...{each['hint']}",
            admin,
            age(each["created_at"]),
            _validity(each),
        )
    return table


def _validity(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return f"revoked {age(key['revoked_at'])} ago"
    expires = key.get("expires_at")
    if expires is None:
        return "valid"
    ended = datetime.fromisoformat(expires) <= datetime.now(UTC)
    return f"expired {age(expires)} ago" if ended else f"until {expires[:10]}"
