"""A group of commands whose modules are imported when they run, so that --help and completion need none of them."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer import core


class Lazy(NamedTuple):
    module: str
    name: str
    """Of a function, or of a typer.Typer with subcommands."""
    help: str
    """The first line of its docstring, or the help of the Typer."""


class LazyGroup(core.TyperGroup):
    lazy: dict[str, Lazy] = {}  # noqa: RUF012

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name, self.lazy[cmd_name]) if cmd_name in self.lazy else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.help) for name, each in self.lazy.items()])


def load(name: str, lazy: Lazy) -> Any:
    """The command itself."""
    target = getattr(import_module(lazy.module), lazy.name)
    if isinstance(target, typer.Typer):
        group = typer.main.get_group(target)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name=name)(target)
    return typer.main.get_command(alone)
