"""What a job leaves to download."""

import re
from pathlib import Path

from api.errors import ArtifactGone
from api.schemas.artifacts import ArtifactList, artifact_out
from api.settings import ApiSettings
from contract.quote import cut
from store import artifacts, jobs
from store.errors import ArtifactNotFound
from store.principal import Principal
from store.session import Sessions

_ARTIFACT_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)


def artifacts_of(sessions: Sessions, who: Principal, job_id: str) -> ArtifactList:
    """Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        found = artifacts.of_job(session, job_id)
    best = artifacts.best(found)
    return ArtifactList(data=[artifact_out(artifact, best is artifact) for artifact in found])


def artifact_path(sessions: Sessions, settings: ApiSettings, who: Principal, job_id: str, name: str) -> Path:
    """The file or folder of an artifact. Raises JobNotFound, ArtifactNotFound, ArtifactGone."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if not _ARTIFACT_NAME.fullmatch(name):  # PostgreSQL does not take every text as a parameter
            raise ArtifactNotFound(job_id, cut(name))
        artifact = artifacts.get(session, job_id, name)
    path = artifacts.locate(settings.runs, artifact)
    if path is None:
        raise ArtifactGone(job_id, name)
    return path
