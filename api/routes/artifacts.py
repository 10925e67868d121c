from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.deps import Bytes, Db, JobId
from api.ranges import hand_out
from api.schemas.artifacts import ArtifactList
from api.services import artifacts as service
from api.who import Who

router = APIRouter(tags=["artifacts"])


@router.get("/jobs/{job_id}/artifacts")
def list_artifacts(db: Db, who: Who, job_id: JobId) -> ArtifactList:
    """What can be downloaded. An archive unpacks to a folder of its name, with `files` in it."""
    return service.artifacts_of(db, who, job_id)


@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response)
def download_artifact(request: Request, db: Db, who: Who, storage: Bytes, job_id: JobId, name: str) -> Response:
    """An artifact, or with Range one part of it. The ETag is its SHA-256."""
    return hand_out(request, service.download(db, storage, who, job_id, name))


@router.head("/jobs/{job_id}/artifacts/{name}/files/{path:path}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}/files/{path:path}", response_class=Response)
def download_artifact_file(
    request: Request, db: Db, who: Who, storage: Bytes, job_id: JobId, name: str, path: str
) -> Response:
    """One file of an archive, by its name in the list; likewise."""
    return hand_out(request, service.download_file(db, storage, who, job_id, name, path))
