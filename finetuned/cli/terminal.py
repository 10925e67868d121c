"""What the command prints: what scripts want to stdout, what people want to know on the way to stderr."""

import json
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from contract.quote import printable


class PrintableConsole(Console):
    """Lets nothing through that could steer the terminal: names, messages and samples come from other people."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Rich's own control codes and lines pass.
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(printable(segment.text, kept="\n\t"), segment.style)


out = PrintableConsole()
err = PrintableConsole(stderr=True)


def tell(line: str, style: str | None = None) -> None:
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    tell(message)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    print_plain(json.dumps(value, indent=2, ensure_ascii=False))


def print_plain(text: str) -> None:
    """To stdout, for scripts: never folded to the width of a terminal."""
    # \r would draw a line over another.
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    typer.echo(printable(lines, kept="\n\t"), nl=lines[-1:] not in ("", "\n"))


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


def list_table(*columns: str, folding: Collection[str]) -> Table:
    """In a terminal that is too narrow the columns `folding` take more lines. The others are never broken: ids, which
    people copy, words and numbers."""
    table = plain_table()
    for name in columns:
        table.add_column(name, no_wrap=name not in folding, overflow="fold")
    return table


def age(time: str) -> str:
    """How long ago a time was, as the service writes it: in a list that is what people look for, and short."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
