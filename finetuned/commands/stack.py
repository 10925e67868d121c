"""`finetuned up` and `finetuned demo`: the whole service on this machine."""

import os
import time
from typing import Annotated

import typer

from finetuned import demo as demo_run
from finetuned import stack
from finetuned.commands.options import Home
from finetuned.models import SHIPPED, list_models
from finetuned.settings import DEFAULT_HOST, DEFAULT_PORT, StackSettings
from finetuned.terminal import out, tell

Host = Annotated[str, typer.Option(envvar="FINETUNED_HOST")]
Port = Annotated[int, typer.Option(envvar="FINETUNED_PORT", min=1, max=65535)]


def up(home: Home, host: Host = DEFAULT_HOST, port: Port = DEFAULT_PORT) -> None:
    """Start the whole service on this machine; Ctrl-C stops it."""
    settings = StackSettings(home.absolute(), host, port, os.environ)
    try:
        with stack.running(settings, tell) as running:
            tell(f"ready at {settings.address}; logs in {settings.logs}", style="bold green")
            if not list_models(settings.models):
                tell(f"no base model yet; add one with: finetuned models add {next(iter(SHIPPED))}")
            tell("submit a job with: finetuned submit RECIPE.json --watch; stop with Ctrl-C")
            while True:
                running.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        tell("stopped")


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
