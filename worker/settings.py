"""What a worker needs to know, read once from FINETUNED_* variables."""

import re
import shlex
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, field_validator
from pydantic_settings import NoDecode

from runtime.settings import StoreSettings
from store.jobs.attempts import Retries

Seconds = Annotated[timedelta, BeforeValidator(lambda given: float(given) if _is_number(given) else given)]
"""Also by their number alone, as people write them; else as in ISO 8601, PT10S."""


def _is_number(given: object) -> bool:
    return isinstance(given, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", given) is not None


class WorkerSettings(StoreSettings):
    worker: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")] = Field(default_factory=socket.gethostname)
    """Its name, which no other worker has. One that begins with it later takes its place."""
    address: str = Field(default_factory=socket.gethostname)
    """By which the workers of other machines reach this one, for jobs on several."""
    slots: Annotated[int, Field(ge=1)] = 1
    """Jobs at once on a machine without GPUs. With GPUs there are as many as these allow."""
    lease: Seconds = timedelta(seconds=10)
    """A job whose worker has not been heard of for so long is taken from it."""
    grace: Seconds = timedelta(seconds=45)
    """From asking a trainer to stop until it is killed. More than torchrun's own 30 s, in which its ranks save."""
    cut_off: Seconds = timedelta(minutes=2)
    """A trainer whose worker cannot reach the database for so long is asked to save and stop."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """Of a job that the infrastructure has failed, in a row, without its coming further."""
    retry_wait: Seconds = timedelta(seconds=2)
    """Before the first of them; twice as long before each next one."""
    longest_retry_wait: Seconds = timedelta(minutes=5)
    trainer: Annotated[list[str] | None, NoDecode] = None
    """The command that trains the run folder named after it; None is ours, by torchrun where there are several
    ranks. Every job shows it, so that no secret belongs in it."""

    merger: Annotated[list[str] | None, NoDecode] = None
    """The command that merges the run folder named after it; None is `python -m trainer.tools.merge`."""

    @property
    def cache(self) -> Path:
        """The trainers' tokenised datasets."""
        return self.home / "cache"

    @property
    def unseen(self) -> timedelta:
        """After so long a trainer that nobody can see has ended: cut off, it is asked to, and then killed."""
        return self.cut_off + self.grace

    @property
    def retries(self) -> Retries:
        return Retries(self.max_retries, self.retry_wait, self.longest_retry_wait)

    @field_validator("trainer", "merger", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return shlex.split(value) if isinstance(value, str) else value
