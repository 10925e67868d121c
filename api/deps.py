"""What routes ask for. What only looks something up is async: FastAPI would send it through its threads."""

import re
from typing import Annotated

from celery import Celery
from fastapi import Depends, Request
from pydantic import AfterValidator

from api.settings import ApiSettings
from contract.quote import cut
from dataset.sandbox import DatasetSandbox
from storage.backends import Storage
from store import datasets
from store.errors import DatasetNotFound, JobNotFound
from store.session import Sessions

LARGEST_INTEGER = 2**31 - 1
"""That a column of seqs and steps can hold."""


# Those that wait for nothing are async: any other costs a way to a thread and back, at each request.


async def _settings(request: Request) -> ApiSettings:
    settings: ApiSettings = request.app.state.settings
    return settings


async def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


async def _broker(request: Request) -> Celery:
    return request.app.state.broker


async def _sandbox(request: Request) -> DatasetSandbox:
    sandbox: DatasetSandbox = request.state.sandbox
    return sandbox


def _job_id(value: str) -> str:
    """Raises JobNotFound for what can be no job's id: PostgreSQL does not take every text as a parameter."""
    if not re.fullmatch(r"job_[0-9a-f]{24}", value):
        raise JobNotFound(cut(value))
    return value


def _dataset_id(value: str) -> str:
    """Raises DatasetNotFound."""
    if not datasets.is_id(value):
        raise DatasetNotFound(cut(value))
    return value


async def _storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


JobId = Annotated[str, AfterValidator(_job_id)]
DatasetId = Annotated[str, AfterValidator(_dataset_id)]
Settings = Annotated[ApiSettings, Depends(_settings)]
Db = Annotated[Sessions, Depends(_sessions)]
Bytes = Annotated[Storage, Depends(_storage)]
Broker = Annotated[Celery, Depends(_broker)]
Looks = Annotated[DatasetSandbox, Depends(_sandbox)]
"""Processes that look at datasets."""
