"""The `finetuned` command, with its subcommands in the order of --help."""

import os
import sys
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

import finetuned
from finetuned.cli.exit_codes import FAILED, INTERRUPTED, UNREACHABLE
from finetuned.cli.lazy import Lazy, LazyGroup
from finetuned.errors import FinetunedError, Unreachable

_CLI, _STACK = "finetuned.cli", "finetuned.stack"
HAS_SERVICE = find_spec(_STACK) is not None
LOCAL = {
    "up": Lazy(f"{_STACK}.commands", "up", "Start the whole service on this machine; Ctrl-C stops it."),
    "down": Lazy(f"{_STACK}.commands", "down", "Stop the service that `finetuned up` runs on a home folder."),
    "demo": Lazy(
        f"{_STACK}.commands",
        "demo",
        "Start everything, train a small model, and compare its answers.",
    ),
    "models": Lazy(f"{_STACK}.commands", "models", "The base models in the home folder."),
    "backup": Lazy(
        f"{_STACK}.backups", "backup", "Save all rows and files of the service in one archive; jobs may run meanwhile."
    ),
    "restore": Lazy(
        f"{_STACK}.backups",
        "restore",
        "Restore an archive into an empty database and home of a stopped service.",
    ),
    "doctor": Lazy(
        f"{_STACK}.doctor",
        "doctor",
        "Check database, broker, disk, GPUs and the rest; exits with 1 and says what to do if one is at fault.",
    ),
}
CLIENT = {
    "status": Lazy(f"{_CLI}.service", "status", "Say whether the service answers, and what it is doing."),
    "open": Lazy(f"{_CLI}.service", "open_dashboard", "Open the dashboard in the browser, and print its address."),
    "submit": Lazy(f"{_CLI}.submission", "submit", "Submit a job and print its id."),
    "clone": Lazy(f"{_CLI}.submission", "clone", "Submit a job's recipe again, with changes."),
    "plan": Lazy(f"{_CLI}.submission", "plan", "Estimate memory, time and disk of a recipe, without training."),
    "watch": Lazy(f"{_CLI}.jobs", "watch", "Watch a job until it ends; exit code 0 if it succeeded."),
    "list": Lazy(f"{_CLI}.jobs", "list_jobs", "List jobs, newest first."),
    "show": Lazy(f"{_CLI}.show", "show", "Show a job: its recipe in short, how far it is, and what went wrong."),
    "compare": Lazy(f"{_CLI}.compare", "compare", "Compare the recipes and results of jobs."),
    "cancel": Lazy(f"{_CLI}.jobs", "cancel", "Cancel a job."),
    "pause": Lazy(f"{_CLI}.jobs", "pause", "Save a job's state and pause it."),
    "resume": Lazy(f"{_CLI}.jobs", "resume", "Resume a paused job from its last training checkpoint."),
    "retry": Lazy(f"{_CLI}.jobs", "retry", "Retry a failed or cancelled job from its last training checkpoint."),
    "delete": Lazy(f"{_CLI}.jobs", "delete", "Delete a job that has ended, with its adapter and all its files."),
    "workers": Lazy(f"{_CLI}.workers", "workers", "List the workers, and what runs on each of their devices."),
    "download": Lazy(f"{_CLI}.jobs", "download", "Download a job's adapter and print its folder."),
    "chat": Lazy(f"{_CLI}.chat", "chat", "Ask a job's model, or its newest checkpoint, and the base model beside it."),
    "evaluate": Lazy(
        f"{_CLI}.evaluate", "evaluate", "Run a dataset through the base model and a job's adapter, and compare them."
    ),
    "ratings": Lazy(
        f"{_CLI}.ratings", "ratings", "List the ratings of a job's answers, or print them as rows to learn from."
    ),
    "export": Lazy(
        f"{_CLI}.jobs", "export", "Export a job's adapter in another format; waits, and prints the artifact's name."
    ),
    "push": Lazy(
        f"{_CLI}.push", "push", "Upload a job's adapter or an export of it to a model hub; prints its address."
    ),
    "logs": Lazy(f"{_CLI}.jobs", "logs", "Print the log of a job's trainer."),
    "clean": Lazy(f"{_CLI}.clean", "clean", "Delete what the retention settings no longer keep; for admins."),
    "sweep": Lazy(f"{_CLI}.sweeps", "app", "Jobs that try values of a recipe's fields."),
    "datasets": Lazy(f"{_CLI}.datasets", "app", "Files of examples."),
    "keys": Lazy(f"{_CLI}.keys", "app", "API keys; for admins."),
    "quotas": Lazy(f"{_CLI}.quotas", "app", "Limits of owners, and what they use; for admins."),
    "secrets": Lazy(f"{_CLI}.secrets", "app", "Keys of trackers and hubs, which recipes name."),
    "webhooks": Lazy(f"{_CLI}.webhooks", "app", "Addresses that get a message when a job ends."),
    "completion": Lazy(f"{_CLI}.completion", "completion", "Print a script of completions for a shell."),
}
_EXPLANATION = (
    "finetuned {}: the service is not part of this package, which is the client alone; "
    "run the service from a checkout or a container image"
)


class _Commands(LazyGroup):
    lazy = (LOCAL if HAS_SERVICE else {}) | CLIENT

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in LOCAL and not HAS_SERVICE:
            typer.echo(_EXPLANATION.format(cmd_name), err=True)
            raise typer.Exit(FAILED)
        return super().get_command(ctx, cmd_name)


class _App(typer.Typer):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Prints an expected error as one line, without a traceback."""
        try:
            return super().__call__(*args, **options)
        except Unreachable as error:
            _note(f"{error}. {_advice(error.url)}")
            sys.exit(UNREACHABLE)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # for instance in `finetuned list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (FinetunedError, OSError) as error:
            _note(str(error))
        sys.exit(FAILED)


def _note(line: str) -> None:
    from finetuned.cli.terminal import note

    note(line)


def _advice(url: str) -> str:
    from finetuned.cli.next_command import start_at

    other = "for a service elsewhere, set FINETUNED_URL or give --url"
    start = start_at(url) if HAS_SERVICE else None
    return f"Start one with: {start}\nOr, {other}" if start else f"Is it running there? Or, {other}"


app = _App(
    cls=_Commands,
    help="Fine-tuning jobs on your own GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
completion_init()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(finetuned.__version__)
        raise typer.Exit


@app.callback()
def _finetuned(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
