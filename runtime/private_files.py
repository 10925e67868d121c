"""Keeps the files of the service private from the other users of the machine."""

import os
from contextlib import suppress
from pathlib import Path

from contract.locate import PRIVATE


def keep_private(home: Path) -> None:
    """Sets the process's umask, and closes folders of the home that were left open. PostgreSQL's folder keeps the modes
    that PostgreSQL's user needs."""
    os.umask(0o077)
    for name in PRIVATE:
        # The folder does not exist yet, or belongs to another user.
        with suppress(OSError):
            if name != "postgres":
                (home / name).chmod(0o700)
