from fastapi import APIRouter
from fastapi.responses import FileResponse, Response, StreamingResponse

from api.archive import tar_gz
from api.deps import Db, JobId, Settings
from api.schemas.artifacts import ArtifactList
from api.services import artifacts as service
from api.who import Who

router = APIRouter(tags=["artifacts"])


@router.get("/jobs/{job_id}/artifacts")
def of_job(db: Db, who: Who, job_id: JobId) -> ArtifactList:
    return service.artifacts_of(db, who, job_id)


@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response)
def download(db: Db, who: Who, settings: Settings, job_id: JobId, name: str) -> Response:
    path = service.artifact_path(db, settings, who, job_id, name)
    if path.is_dir():
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        archive = tar_gz(path, name.removesuffix(".tar.gz"))
        return StreamingResponse(archive, media_type="application/gzip", headers=headers)
    return FileResponse(path, media_type="text/plain; charset=utf-8", filename=name)
