from fastapi import APIRouter
from fastapi.responses import FileResponse, Response, StreamingResponse

from api.archive import tar_gz
from api.deps import Db, Settings
from api.schemas import ArtifactList, artifact_out
from store import artifacts, jobs

router = APIRouter(tags=["artifacts"])


@router.get("/jobs/{job_id}/artifacts")
def of_job(db: Db, job_id: str) -> ArtifactList:
    with db.begin() as session:
        jobs.get(session, job_id)
        return ArtifactList(data=[artifact_out(artifact) for artifact in artifacts.of_job(session, job_id)])


@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response)
def download(db: Db, settings: Settings, job_id: str, name: str) -> Response:
    with db.begin() as session:
        jobs.get(session, job_id)
        artifact = artifacts.get(session, job_id, name)
    path = settings.runs / artifact.path
    if path.is_dir():
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(
            tar_gz(path, name.removesuffix(".tar.gz")), media_type="application/gzip", headers=headers
        )
    return FileResponse(path, media_type="text/plain; charset=utf-8", filename=name)
