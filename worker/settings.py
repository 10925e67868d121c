"""The settings of a worker, read once from FINETUNED_* variables."""

import shlex
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import NoDecode

from runtime.settings import Seconds, StoreSettings
from store.jobs.attempts import Retries


class WorkerSettings(StoreSettings):
    worker: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")] = Field(default_factory=socket.gethostname)
    """The unique name of this worker. A worker that starts later with the same name replaces it."""
    address: str = Field(default_factory=socket.gethostname)
    """The name or address by which other machines reach this one, for jobs on several machines."""
    slots: Annotated[int, Field(ge=1)] = 1
    """Jobs at once on a machine without GPUs. With GPUs, the GPUs are the limit."""
    lease: Seconds = timedelta(seconds=10)
    """After so long without a heartbeat a worker loses its jobs."""
    grace: Seconds = timedelta(seconds=45)
    """How long a trainer may take to stop before it is killed. More than torchrun's own 30 s for its ranks to save."""
    cut_off: Seconds = timedelta(minutes=2)
    """A trainer saves and stops when its worker cannot reach the database for so long."""
    disk_reserve: Annotated[int, Field(ge=0)] = 2 << 30
    """With fewer bytes free in the home folder no attempt starts here; running ones may use them up. 0 is no limit."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """Retries in a row of a job that fails by the infrastructure and makes no progress."""
    retry_wait: Seconds = timedelta(seconds=2)
    """The delay before the first retry; it doubles with each further one."""
    longest_retry_wait: Seconds = timedelta(minutes=5)
    """The longest delay before a retry."""
    trainer: Annotated[list[str] | None, NoDecode] = None
    """The command that trains a run folder, which is appended to it; None is the built-in trainer, under torchrun if
    there are several ranks. Every job shows it, so keep secrets out of it."""

    merger: Annotated[list[str] | None, NoDecode] = None
    """The command that merges a run folder, which is appended to it; None is `python -m trainer.tools.merge`."""

    @property
    def cache(self) -> Path:
        """Where trainers keep tokenised datasets."""
        return self.home / "cache"

    @property
    def unseen(self) -> timedelta:
        """How long the trainer of an unreachable worker can live: until it is cut off, plus the grace to stop."""
        return self.cut_off + self.grace

    @property
    def retries(self) -> Retries:
        return Retries(self.max_retries, self.retry_wait, self.longest_retry_wait)

    @field_validator("trainer", "merger", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return shlex.split(value) if isinstance(value, str) else value
