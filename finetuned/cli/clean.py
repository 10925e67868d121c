"""`finetuned clean`."""

from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import format_bytes
from finetuned.cli.options import Key, Url
from finetuned.cli.terminal import list_table, note, out, print_json


def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, only say what would be freed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Delete what the retention settings no longer keep; for admins."""
    with Client(url, key=key) as client:
        freed = client.clean(dry_run).raw
    if as_json:
        print_json(freed)
        return
    out.print(_table(freed["data"]), markup=False, highlight=False)
    note(f"{format_bytes(freed['bytes'])} {'would be' if dry_run else 'are'} freed")


def _table(kinds: list[dict[str, Any]]) -> Table:
    table = list_table("kind", "count", "size", folding=())
    for each in kinds:
        table.add_row(each["kind"].replace("_", " "), str(each["count"]), format_bytes(each["bytes"]))
    return table
