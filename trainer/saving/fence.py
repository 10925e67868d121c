"""An attempt that the service has given up may still train, where nobody sees it. Once a later one goes on from what it
has saved, it saves and removes nothing more in its run folder.

A network's file system may show the sign late, after as long as it keeps what it knows of a folder.
"""

from contract.run_dir import RunDir


class Superseded(RuntimeError):
    """A later attempt goes on from what this one has saved; this one ends."""

    def __str__(self) -> str:
        return str(self.__doc__)


def check_not_superseded(run: RunDir) -> None:
    """Before anything is saved or removed. Raises Superseded."""
    if run.superseded.exists():
        raise Superseded
