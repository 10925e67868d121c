"""The `finetuned` command: what there is, in the order that --help has."""

import os
import sys
from typing import Any

import typer

from finetuned.cli import datasets, jobs, keys, models, up, webhooks, workers
from finetuned.cli.next_command import start_at
from finetuned.cli.terminal import tell
from finetuned.client import ServiceError, Unreachable
from finetuned.stack.process import StackError


class _App(typer.Typer):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Errors that we foresee are told in a line, without a traceback."""
        try:
            return super().__call__(*args, **options)
        except Unreachable as error:
            start = start_at(error.url)
            tell(f"{error}. Start one with: {start}" if start else f"{error}. Is it running there?")
        except BrokenPipeError:  # as of `finetuned list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ServiceError, StackError, OSError) as error:
            tell(str(error))
        sys.exit(1)


app = _App(
    help="Fine-tuning jobs on your own GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(up.up)
app.command()(jobs.submit)
app.command()(jobs.plan)
app.command()(jobs.watch)
app.command(name="list")(jobs.list_jobs)
app.command()(jobs.show)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(workers.workers)
app.command()(jobs.download)
app.command()(jobs.export)
app.command()(jobs.logs)
app.command()(up.demo)
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
