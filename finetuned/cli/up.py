"""`finetuned up` and `finetuned demo`: the whole service on this machine."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from finetuned.cli import demo as demo_run
from finetuned.cli.next_command import beside_home, beside_service
from finetuned.cli.options import Home
from finetuned.cli.terminal import out, tell
from finetuned.stack import services
from finetuned.stack.models import SHIPPED, list_models
from finetuned.stack.settings import DEFAULT_HOST, DEFAULT_PORT, StackSettings

Host = Annotated[str, typer.Option(envvar="FINETUNED_HOST")]
Port = Annotated[int, typer.Option(envvar="FINETUNED_PORT", min=1, max=65535)]


def up(home: Home, host: Host = DEFAULT_HOST, port: Port = DEFAULT_PORT) -> None:
    """Start the whole service on this machine; Ctrl-C stops it."""
    settings = StackSettings(home.absolute(), host, port, os.environ)
    try:
        with services.running(settings, tell) as running:
            tell(f"ready at {settings.address}; logs in {settings.logs}", style="bold green")
            _tell_what_to_do(settings)
            while True:
                running.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        tell("stopped")


def _tell_what_to_do(settings: StackSettings) -> None:
    if (why := settings.nothing_allowed_because) is not None:
        tell(
            f"recipes may name no file of {Path.cwd()}: {why}. FINETUNED_ALLOWED_PATHS takes the folders that they may"
        )
    if not list_models(settings.models):
        tell(f"no base model yet; add one with: {beside_home(f'models add {next(iter(SHIPPED))}', settings.home)}")
    submit = beside_service("submit RECIPE.json --watch", settings.address, settings.needs_keys)
    tell(f"submit a job with: {submit}; stop with Ctrl-C")


def demo(
    home: Home,
    exit_after: Annotated[bool, typer.Option("--exit", help="Stop everything at the end.")] = False,
    host: Host = DEFAULT_HOST,
    port: Port = DEFAULT_PORT,
) -> None:
    """Start everything, train a small model on a few examples, and compare its answers."""
    try:
        demo_run.run(home.absolute(), host, port, out, exit_after)
    except KeyboardInterrupt:
        tell("stopped")
