"""What an attempt knows of its trainer, wherever that runs: how it is started, watched, stopped and read at its end."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contract.failure import Failure
from contract.recipe import Recipe
from contract.run_dir import RunDir
from store.scheduling.situation import Wait


@dataclass(frozen=True)
class TrainerRun:
    """What a launcher starts."""

    job_id: str
    attempt: int
    recipe: Recipe
    folder: RunDir
    state: Path | None
    """The training checkpoint that it resumes from."""

    @property
    def name(self) -> str:
        """Different for every attempt at every job."""
        return f"{self.job_id}-{self.attempt}"


@dataclass(frozen=True)
class Ended:
    """How a trainer ended. No process of it is left."""

    exit_code: int
    """128 + n where signal n ended it."""
    failure: Failure | None = None
    """Why it failed, where the launcher knows better than the trainer."""
    excused: bool = False
    """It was stopped, and not for a fault of its own nor at its owner's request."""
    message: str | None = None
    """What the owner is told about it."""


class Trainer(Protocol):
    """A trainer that was started. No call waits for a machine or a network, but `wait`."""

    def poll(self) -> Ended | None:
        """How it ended; None while a process of it is, or may be, there."""
        ...

    def wait(self) -> Ended: ...

    def stop(self) -> None:
        """Lets it save and exit, and kills whatever is left when the grace is over."""
        ...

    def kill(self) -> None:
        """Kills it at once."""
        ...

    def waits(self) -> Wait | None:
        """Why it has not begun; None once it has."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A trainer that can be started."""

    command: list[str]
    """What its job shows."""
    endpoint: str | None
    """Where the machines of the attempt meet, if other workers take part in it."""
    start: Callable[[], Trainer]

    @property
    def printed(self) -> str:
        return shlex.join(self.command)


class Launcher(Protocol):
    def prepare(self, run: TrainerRun) -> Prepared: ...
