"""Stops an attempt that the service has given up but that still trains somewhere. Once a later attempt continues from
its state, it neither saves nor removes anything in its run folder.

A network file system may show the marker late, by as long as it caches a folder.
"""

from contract.run_dir import RunDir


class RunSuperseded(RuntimeError):
    """A later attempt continues from this one's state; this one ends."""

    def __str__(self) -> str:
        return str(self.__doc__)


def check_not_superseded(run: RunDir) -> None:
    """Called before anything is saved or removed."""
    if run.superseded.exists():
        raise RunSuperseded
