"""What every request needs, made once for each process of the API."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypedDict

from celery import Celery
from fastapi import Depends, Request

from api.auth.keyring import Keyring
from api.auth.rates import Rates
from api.background.checks import Checks
from api.background.job_table import JobTable
from api.background.live import Live
from api.background.open_requests import OpenRequests
from api.datasets.reader import RowReader
from api.http.telemetry import Telemetry
from api.model_folders import ModelFolders
from api.settings import ApiSettings
from dataset.sandbox.child import DatasetSandbox
from storage.backends import Storage
from store.access.vault import Vault
from store.session import Sessions


@dataclass
class Services:
    settings: ApiSettings
    sessions: Sessions
    vault: Vault
    """Encrypts what is stored of secrets."""
    publisher: Celery
    """Sends messages to the workers."""
    storage: Storage
    sandbox: DatasetSandbox
    """Processes that read datasets."""
    models: ModelFolders
    reader: RowReader
    checks: Checks
    """Checks new datasets in the background."""
    keyring: Keyring
    rates: Rates
    requests: OpenRequests
    telemetry: Telemetry
    live: Live
    """The event streams."""
    job_table: JobTable
    """The streams of all jobs' summaries."""
    web: Path
    """Folder of the built page."""
    started: float = field(default_factory=time.monotonic)


class State(TypedDict):
    """What the lifespan of the application gives to every request's state."""

    services: Services


async def _services(request: Request) -> Services:
    services: Services = request.state.services
    return services


Context = Annotated[Services, Depends(_services)]
