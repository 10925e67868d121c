"""The `finetuned` command, with its subcommands in the order of --help."""

import os
import sys
from typing import Any

import typer

from finetuned.cli import clean, datasets, jobs, keys, local_service, sweeps, webhooks, workers
from finetuned.cli.next_command import start_at
from finetuned.cli.terminal import note
from finetuned.errors import FinetunedError, Unreachable


class _App(typer.Typer):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Prints an expected error as one line, without a traceback."""
        try:
            return super().__call__(*args, **options)
        except Unreachable as error:
            start = start_at(error.url) if local_service.AVAILABLE else None
            note(f"{error}. Start one with: {start}" if start else f"{error}. Is it running there?")
        except BrokenPipeError:  # for instance in `finetuned list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (FinetunedError, OSError) as error:
            note(str(error))
        sys.exit(1)


app = _App(
    help="Fine-tuning jobs on your own GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

local_service.add_commands(app)
app.command()(jobs.submit)
app.command()(jobs.plan)
app.command()(jobs.watch)
app.command(name="list")(jobs.list_jobs)
app.command()(jobs.show)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(jobs.delete)
app.command()(workers.workers)
app.command()(jobs.download)
app.command()(jobs.export)
app.command()(jobs.logs)
app.command()(clean.clean)
app.add_typer(sweeps.app, name="sweep")
app.add_typer(datasets.app, name="datasets")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
