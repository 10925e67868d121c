from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel

from store import artifacts
from store.models import Artifact


class FileOut(BaseModel):
    name: str
    """With "/" between its folders."""
    bytes: int
    sha256: str


class ArtifactOut(BaseModel):
    name: str
    kind: str
    step: int | None
    bytes: int
    """That a download gives."""
    sha256: str
    """Of these bytes; the ETag of the download."""
    files: list[FileOut]
    """In an archive; of a single file itself."""
    eval_loss: float | None
    """Of the evaluation at its step, where there was one."""
    best: bool
    """The adapter or checkpoint with the lowest eval_loss, which best.tar stands for."""
    created_at: datetime


class ArtifactList(BaseModel):
    data: list[ArtifactOut]


def artifact_out(artifact: Artifact, best: bool) -> ArtifactOut:
    return ArtifactOut(
        name=artifact.name,
        kind=artifact.kind,
        step=artifact.step,
        bytes=artifact.bytes,
        sha256=artifact.sha256 or "",
        files=[FileOut.model_validate(asdict(file)) for file in artifacts.files(artifact)],
        eval_loss=artifact.eval_loss,
        best=best,
        created_at=artifact.created_at,
    )
