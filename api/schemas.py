"""What the API answers."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from contract.failure import Failure
from contract.status import JobStatus, Wish
from store.models import Artifact, Job
from store.progress import Latest


class Progress(BaseModel):
    """As of the last optimizer step."""

    step: int
    total_steps: int | None
    epoch: float
    loss: float
    eval_loss: float | None
    """Of the last evaluation."""
    best_step: int | None
    """Of the lowest eval_loss, 0 for the base model; told when the run has ended."""
    stopped_early: bool
    tokens_per_second: float
    progress: float
    eta_seconds: float


class FailureOut(BaseModel):
    reason: str
    message: str
    param: str | None
    retry_can_help: bool
    log_tail: str | None


class JobOut(BaseModel):
    id: str
    name: str | None
    status: JobStatus
    cancel_requested: bool
    attempt: int
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    recipe: dict[str, Any]
    command: str | None
    """That the latest attempt was started with, for a shell on the worker's machine."""
    progress: Progress | None
    failure: FailureOut | None


class JobPage(BaseModel):
    data: list[JobOut]
    has_more: bool


class Evaluations(BaseModel):
    step: list[int]
    eval_loss: list[float]


class Metrics(BaseModel):
    job_id: str
    columns: dict[str, list[float | bool | None]]
    """One list per column, all of one length, by step."""
    evaluations: Evaluations


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


class Sample(BaseModel):
    step: int
    index: int
    """Of the prompt, from 0: the same ones at every evaluation."""
    prompt: str
    expected: str
    generated: str


class SampleList(BaseModel):
    data: list[Sample]


class Health(BaseModel):
    status: str


def job_out(job: Job, latest: Latest | None) -> JobOut:
    return JobOut(
        id=job.id,
        name=job.name,
        status=job.status,
        cancel_requested=job.wish is Wish.CANCEL,
        attempt=job.attempt,
        worker=job.worker,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        recipe=job.recipe,
        command=job.command,
        progress=_progress(job, latest) if latest else None,
        failure=_failure(job),
    )


def _progress(job: Job, latest: Latest) -> Progress:
    metric = latest.metric
    return Progress(
        step=metric.step,
        total_steps=job.total_steps,
        epoch=metric.epoch,
        loss=metric.loss,
        eval_loss=latest.eval_loss,
        best_step=latest.done.get("best_step"),
        stopped_early=latest.done.get("stopped_early", False),
        tokens_per_second=metric.tokens_per_second,
        progress=metric.progress,
        eta_seconds=metric.eta_seconds,
    )


def _failure(job: Job) -> FailureOut | None:
    if job.failure is None:
        return None
    failure = Failure.model_validate(job.failure)
    return FailureOut(
        reason=failure.reason,
        message=failure.message,
        param=failure.param,
        retry_can_help=failure.reason.retry_can_help,
        log_tail=job.log_tail,
    )


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
