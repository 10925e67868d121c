from datetime import datetime

from pydantic import BaseModel

from store.models import Artifact


class ArtifactOut(BaseModel):
    name: str
    kind: str
    step: int | None
    bytes: int
    """On the server; the archive is smaller."""
    eval_loss: float | None
    """Of the evaluation at its step, where there was one."""
    best: bool
    """The adapter or checkpoint with the lowest eval_loss, which best.tar.gz stands for."""
    created_at: datetime


class ArtifactList(BaseModel):
    data: list[ArtifactOut]


def artifact_out(artifact: Artifact, best: bool) -> ArtifactOut:
    return ArtifactOut(
        name=artifact.name,
        kind=artifact.kind,
        step=artifact.step,
        bytes=artifact.bytes,
        eval_loss=artifact.eval_loss,
        best=best,
        created_at=artifact.created_at,
    )
