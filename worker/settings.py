"""What a worker needs to know, read once from FINETUNED_* variables."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from store.settings import StoreSettings


class WorkerSettings(StoreSettings):
    slots: Annotated[int, Field(ge=1)] = 1
    """Jobs that run at once on this worker."""
    lease: timedelta = timedelta(seconds=10)
    """A job whose worker has not been heard of for so long is taken from it."""
    grace: timedelta = timedelta(seconds=45)
    """From asking a trainer to stop until it is killed. More than torchrun's own 30 s, in which its ranks save."""
    max_losses: Annotated[int, Field(ge=1)] = 3
    """Workers that a job may lose; with the last one it fails."""
    trainer: Annotated[list[str] | None, NoDecode] = None
    """The command that trains the run folder named after it; None is torchrun, with the ranks that the recipe asks.
    Every job shows it, so that no secret belongs in it."""

    @property
    def cache(self) -> Path:
        """The trainers' tokenised datasets."""
        return self.home / "cache"

    @field_validator("trainer", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return shlex.split(value) if isinstance(value, str) else value
