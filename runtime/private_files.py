"""Keeps what owners have from the other users of a machine."""

import os
from contextlib import suppress
from pathlib import Path

from contract.locate import PRIVATE


def keep_private(home: Path) -> None:
    """From now on nobody else can read what this process and its children write, nor enter a folder of the home that
    an earlier release has left open. PostgreSQL's has the modes that PostgreSQL's user needs."""
    os.umask(0o077)
    for name in PRIVATE:
        # It is not there yet, or it is another user's, who has the say.
        with suppress(OSError):
            if name != "postgres":
                (home / name).chmod(0o700)
