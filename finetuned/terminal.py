"""What the command prints: what scripts want to stdout, what people want to know on the way to stderr."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

out = Console()
err = Console(stderr=True)


def tell(line: str, style: str | None = None) -> None:
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    tell(message)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_list(
    found: list[dict[str, Any]], as_json: bool, table: Callable[[list[dict[str, Any]]], Table], if_none: str
) -> None:
    if as_json:
        print_json(found)
    elif found:
        out.print(table(found), markup=False, highlight=False)
    else:
        tell(if_none)


def plain_table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def minute(time: str | None) -> str:
    """Of a time as the service writes it; nothing where there is none."""
    return (time or "")[:16].replace("T", " ")
