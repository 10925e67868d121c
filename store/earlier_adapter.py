"""Finds the adapter of an earlier job, from which a recipe starts."""

import re
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from contract import ids
from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from storage.backends import FolderStorage, Storage
from store import artifacts
from store.errors import ArtifactNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact, Job
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
    job_id, name = _parse(start_from)
    try:
        with sessions.begin() as session:
            jobs.get(session, job_id, owner)
            artifact = artifacts.get(session, job_id, name)
    except (JobNotFound, ArtifactNotFound) as error:
        raise _refusal(start_from, str(error)) from error
    try:
        return folder_of(artifact, home, storage, fetched, heartbeat)
    except FileNotFoundError as error:
        raise _refusal(start_from, "its files are no longer on the server") from error


def hold_earlier(session: Session, start_from: str, owner: str | None = None) -> str:
    """The id of the job that `start_from` names. Neither the job nor its model can be deleted before the transaction
    ends. Raises InputError."""
    job_id, name = _parse(start_from)
    try:
        jobs.hold(session, job_id, owner)
        artifacts.get(session, job_id, name)
    except (JobNotFound, ArtifactNotFound) as error:
        raise _refusal(start_from, str(error)) from error
    return job_id


def first_init(session: Session, job: Job) -> str:
    """The adapter.init of the job whose adapter this one's continues, over any number of jobs; "default" where one of
    them is deleted."""
    adapter = job.recipe["adapter"]
    while (start_from := adapter.get("start_from")) is not None:
        earlier = session.get(Job, _parse(start_from)[0])
        adapter = {} if earlier is None else earlier.recipe["adapter"]
    return str(adapter.get("init", "default"))


def _parse(start_from: str) -> tuple[str, str]:
    """The id of a job, and the name of its artifact. Raises InputError."""
    named = _NAMED.fullmatch(start_from)
    if named is None:
        raise _refusal(start_from, 'give the id of a job, with "/checkpoint-STEP" after it for one of its checkpoints')
    return named["job"], f"{named['checkpoint'] or 'adapter'}.tar"


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
