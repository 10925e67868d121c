"""`finetuned backup` and `finetuned restore`: the service's rows and files as one archive."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from finetuned.address import DEFAULT_HOST, DEFAULT_PORT
from finetuned.cli.options import OneAsJson
from finetuned.cli.terminal import fail
from finetuned.stack import postgres
from finetuned.stack.commands import Home
from finetuned.stack.home import hold, make_folder
from finetuned.stack.settings import StackSettings

_DATABASE = "FINETUNED_DATABASE_URL"
File = Annotated[str, typer.Argument(metavar="FILE", help='The archive; "-" is standard output or input.')]


def backup(file: File, home: Home, as_json: OneAsJson = False) -> None:
    """Save all rows and files of the service in one archive; jobs may run meanwhile."""
    if as_json and file == "-":
        fail("--json: the archive itself goes to standard output; give the name of a file")
    with _database(home) as url:
        _run("backup", file, home, url, as_json)


def restore(file: File, home: Home, as_json: OneAsJson = False) -> None:
    """Restore an archive into an empty database and home of a stopped service."""
    make_folder(home.absolute(), on_the_way=True)
    if _DATABASE in os.environ:
        _run("restore", file, home, os.environ[_DATABASE], as_json)
    else:
        with hold(home), postgres.running(home.absolute() / "postgres") as url:
            _run("restore", file, home, url, as_json)


@contextmanager
def _database(home: Path) -> Iterator[str]:
    """The configured database, or that of `finetuned up`, which is started if it does not run."""
    url = os.environ.get(_DATABASE) or postgres.running_url(home / "postgres")
    if url is not None:
        yield url
        return
    with hold(home), postgres.running(home.absolute() / "postgres") as url:
        yield url


def _run(action: str, file: str, home: Path, url: str, as_json: bool) -> None:
    settings = StackSettings(home.absolute(), DEFAULT_HOST, DEFAULT_PORT, os.environ)
    environment = settings.part_environment("backup", url, "")
    options = ["--json"] if as_json else []
    done = subprocess.run([sys.executable, "-P", "-m", "store.backup", action, file, *options], env=environment)
    if done.returncode:
        raise typer.Exit(1)
