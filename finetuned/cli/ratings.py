"""`finetuned ratings`."""

import json
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.jobs import JobId
from finetuned.cli.options import AsJson, Key, Url
from finetuned.cli.terminal import list_table, print_list, print_plain

Rows = Annotated[
    Literal["kto", "dpo"] | None,
    typer.Option("--rows", help="Print them as rows of a dataset for this method: kto has labels, dpo has pairs."),
]


def ratings(job: JobId, rows: Rows = None, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the ratings of a job's answers, or print them as rows to learn from."""
    with Client(url, key=key) as client:
        if rows is None:
            found = [each.raw for each in client.ratings.of(job)]
            print_list(found, as_json, _table, "no ratings yet; the dashboard's chat page has buttons for them")
            return
        lines = client.ratings.rows(job, rows)
    if as_json:
        print_list(lines, as_json, _table, "")
        return
    for line in lines:
        print_plain(json.dumps(line, ensure_ascii=False))


def _table(found: list[dict[str, Any]]) -> Table:
    table = list_table("rating", "verdict", "model", "answer", folding=("model", "answer"))
    for each in found:
        verdict = "better" if each["label"] is None else "good" if each["label"] else "bad"
        table.add_row(each["id"], verdict, each["model"], str(each["answer"].get("content") or ""))
    return table
