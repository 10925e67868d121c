"""Output of the command: results for scripts on stdout, notes for people on stderr."""

import json
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table


class PrintableConsole(Console):
    """Escapes everything that could steer the terminal, as names, messages and samples come from other people."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Rich's own control codes and line ends are kept.
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(printable(segment.text, kept="\n\t"), segment.style)


out = PrintableConsole()
err = PrintableConsole(stderr=True)


def note(line: str, style: str | None = None) -> None:
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    note(message)
    raise typer.Exit(1)


def print_json(value: object) -> None:
    print_plain(json.dumps(value, indent=2, ensure_ascii=False))


def print_plain(text: str) -> None:
    """Prints to stdout for scripts, without wrapping."""
    # \r would overwrite the line before.
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
        note(if_none)


def printable(text: str, kept: str = "") -> str:
    """Escapes, as JSON does, every character that could steer a terminal or hide other text; leaves those in `kept`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else json.dumps(char)[1:-1] for char in text)


def plain_table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def list_table(*columns: str, folding: Collection[str]) -> Table:
    """A table whose `folding` columns wrap in a narrow terminal. The other columns, such as ids to copy, never wrap."""
    table = plain_table()
    for name in columns:
        table.add_column(name, no_wrap=name not in folding, overflow="fold")
    return table


def age(time: str) -> str:
    """How long ago an ISO 8601 time was, in one short unit."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
