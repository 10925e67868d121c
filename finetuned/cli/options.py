"""What more than one command is given."""

import getpass
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from finetuned.stack.settings import default_home

Url = Annotated[str, typer.Option(envvar="FINETUNED_URL", help="Where the service is.")]
Key = Annotated[str | None, typer.Option(envvar="FINETUNED_API_KEY", help="The key, where the service wants one.")]
Owner = Annotated[
    str | None,
    typer.Option(envvar="FINETUNED_OWNER", help="Whose the job is; default: the key's owner, else your login name."),
]
Home = Annotated[
    Path, typer.Option(default_factory=default_home, envvar="FINETUNED_HOME", help="Models, runs, database and logs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON list.")]
Newest = Annotated[int, typer.Option(min=1, help="So many of the newest.")]


def owner_or_user(owner: str | None, key: str | None) -> str | None:
    """None where the key tells whose it is."""
    return owner or (None if key else _user())


def _user() -> str:
    """Who runs this, as far as the service takes the name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        name = f"user-{os.getuid()}"
    return re.sub(r"[^\w.@-]", "_", name, flags=re.ASCII)[:100]
