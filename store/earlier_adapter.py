"""Finds the adapter of an earlier job, from which a recipe starts."""

import re
from collections.abc import Callable
from pathlib import Path

from contract import ids
from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from storage.backends import FolderStorage, Storage
from store import artifacts
from store.errors import ArtifactNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact
from store.session import Sessions

_PARAM = "adapter.start_from"
_NAMED = re.compile(rf"(?P<job>{ids.JOB}{ids.HEX})(/(?P<checkpoint>checkpoint-[0-9]{{1,10}}))?")


def earlier_adapter(  # parameters: the storage, the adapter, and who may read it
    sessions: Sessions,
    storage: Storage,
    home: FolderStorage,
    start_from: str,
    fetched: Path,
    owner: str | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Path:
    """The absolute folder of the adapter that `start_from` names: "JOB", or "JOB/checkpoint-STEP", of a job of `owner`
    or of any owner with None. Files that are no longer in the home folder are fetched from the storage into `fetched`,
    with calls of `heartbeat`. Raises InputError, StorageUnavailable.

    No session is open during a fetch. More than five parameters: both storages and the database are needed.
    """
    named = _NAMED.fullmatch(start_from)
    if named is None:
        raise _refusal(start_from, 'give the id of a job, with "/checkpoint-STEP" after it for one of its checkpoints')
    name = f"{named['checkpoint'] or 'adapter'}.tar"
    try:
        with sessions.begin() as session:
            jobs.get(session, named["job"], owner)
            artifact = artifacts.get(session, named["job"], name)
    except (JobNotFound, ArtifactNotFound) as error:
        raise _refusal(start_from, str(error)) from error
    try:
        return folder_of(artifact, home, storage, fetched, heartbeat)
    except FileNotFoundError as error:
        raise _refusal(start_from, "its files are no longer on the server") from error


def folder_of(
    artifact: Artifact,
    home: FolderStorage,
    storage: Storage,
    fetched: Path,
    heartbeat: Callable[[], None] = lambda: None,
) -> Path:
    """The folder of an adapter: in the home folder, else fetched into `fetched` with calls of `heartbeat`. Raises
    FileNotFoundError, StorageUnavailable."""
    try:
        return home.local_path(artifacts.key(artifact))
    except FileNotFoundError:
        if not storage.remote:
            raise
    for file in artifacts.files(artifact):
        storage.fetch(artifacts.key(artifact, file.name), fetched / file.name, heartbeat)
    return fetched


def _refusal(start_from: str, problem: str) -> InputError:
    message = f"{_PARAM}: got {format_value(start_from)}; {problem}"
    return InputError(FailureCode.RECIPE_INVALID, message, _PARAM)
