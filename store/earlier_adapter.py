"""Finds the adapter of an earlier job that a recipe starts from."""

import re
from collections.abc import Callable
from pathlib import Path

from contract.failure import FailureCode, InputError
from contract.quote import quote
from storage.backends import Folder, Storage
from store import artifacts
from store.errors import ArtifactNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact
from store.session import Sessions

_PARAM = "adapter.start_from"
_NAMED = re.compile(r"(?P<job>job_[0-9a-f]{24})(/(?P<checkpoint>checkpoint-[0-9]{1,10}))?")


def earlier_adapter(
    sessions: Sessions,
    storage: Storage,
    home: Folder,
    start_from: str,
    fetched: Path,
    owner: str | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Path:
    """The folder, absolute, of "JOB", a job's adapter, or of "JOB/checkpoint-STEP"; of a job of `owner` alone, where
    that is given. What is no longer in the home folder is fetched from the storage, into `fetched`; `beat` is called
    meanwhile. Raises InputError, StorageUnavailable.

    No session is held meanwhile, nor when it returns.
    """
    named = _NAMED.fullmatch(start_from)
    if named is None:
        raise _refusal(start_from, 'give the id of a job, with "/checkpoint-STEP" after it for one of its checkpoints')
    name = f"{named['checkpoint'] or 'adapter'}.tar.gz"
    try:
        with sessions.begin() as session:
            jobs.get(session, named["job"], owner)
            artifact = artifacts.get(session, named["job"], name)
    except (JobNotFound, ArtifactNotFound) as error:
        raise _refusal(start_from, str(error)) from error
    try:
        return folder_of(artifact, home, storage, fetched, beat)
    except FileNotFoundError as error:
        raise _refusal(start_from, "its files are no longer on the server") from error


def folder_of(
    artifact: Artifact, home: Folder, storage: Storage, fetched: Path, beat: Callable[[], None] = lambda: None
) -> Path:
    """An adapter's, in the home folder or else `fetched`; `beat` is called while it is fetched. Raises
    FileNotFoundError, StorageUnavailable."""
    try:
        return home.local_path(artifacts.key(artifact))
    except FileNotFoundError:
        if not storage.remote:
            raise
    for file in artifacts.files(artifact):
        storage.fetch(artifacts.key(artifact, file.name), fetched / file.name, beat)
    return fetched


def _refusal(start_from: str, problem: str) -> InputError:
    message = f"{_PARAM}: got {quote(start_from)}; {problem}"
    return InputError(FailureCode.RECIPE_INVALID, message, _PARAM)
