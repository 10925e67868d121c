"""The commands for a service on this machine: `up`, `demo`, `models`, `backup`, `restore` and `doctor`.

They need the service, which a checkout has. The published package is the client alone; there they say so.
"""

from importlib.util import find_spec

import typer

AVAILABLE = find_spec("finetuned.stack") is not None

_EXPLANATION = (
    "finetuned {}: the service is not part of this package, which is the client alone; "
    "run the service from a checkout or a container image"
)
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_commands(app: typer.Typer) -> None:
    if AVAILABLE:
        from finetuned.stack import backups, commands, doctor  # absent from the published package

        app.command()(commands.up)
        app.command()(commands.demo)
        app.add_typer(commands.models, name="models")
        app.command()(backups.backup)
        app.command()(backups.restore)
        app.command()(doctor.doctor)
        return
    for name in ("up", "demo", "models", "backup", "restore", "doctor"):
        app.command(name, hidden=True, context_settings=_ANY_ARGUMENTS)(_refuse)


def _refuse(context: typer.Context) -> None:
    typer.echo(_EXPLANATION.format(context.info_name), err=True)
    raise typer.Exit(1)
