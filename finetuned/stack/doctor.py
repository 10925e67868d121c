"""`finetuned doctor`: what the service needs on this machine, and what is at fault."""

import os
import subprocess
import sys
from urllib.parse import quote

import typer

from finetuned.address import DEFAULT_HOST, DEFAULT_PORT
from finetuned.cli.options import AsJson
from finetuned.cli.terminal import note
from finetuned.stack import postgres
from finetuned.stack.commands import Home, Host, Port
from finetuned.stack.settings import StackSettings


def doctor(home: Home, host: Host = DEFAULT_HOST, port: Port = DEFAULT_PORT, as_json: AsJson = False) -> None:
    """Check database, broker, disk, GPUs and the rest; exits with 1 and says what to do if one is at fault."""
    settings = StackSettings(home.absolute(), host, port, os.environ)
    database_url = settings.database_url or postgres.running_url(settings.home / "postgres")
    if database_url is None:
        note(f"no service runs on {home}: start it with `finetuned up`, or set FINETUNED_DATABASE_URL and the others")
        raise typer.Exit(1)
    valkey = f"redis+socket://{quote(str(settings.home / 'valkey' / 'run' / 'valkey.sock'))}"
    environment = settings.part_environment("doctor", database_url, settings.broker_url or valkey)
    options = ["--json"] if as_json else []
    done = subprocess.run([sys.executable, "-P", "-m", "worker.doctor", *options], env=environment)
    raise typer.Exit(done.returncode)
