from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from api.jobs.view import JobView
from contract.exit_report import ExitReport
from contract.failure import Failure, FailureCode
from contract.status import JobStatus, RequestedAction
from store.jobs.progress import Latest
from store.models import Job, TrackedRun
from store.scheduling.situation import Wait


class Progress(BaseModel):
    """State after the last optimizer step."""

    step: int
    total_steps: int | None
    epoch: float
    loss: float
    eval_loss: float | None
    """Loss of the last evaluation."""
    best_step: int | None
    """Step with the lowest eval_loss, 0 for the base model; known when the run has ended."""
    stopped_early: bool
    tokens_per_second: float
    progress: float
    eta_seconds: float


class FailureOut(BaseModel):
    code: FailureCode
    """Code for programs."""
    message: str
    """Message for people."""
    param: str | None
    retryable: bool
    log_tail: str | None


class Queue(BaseModel):
    """Why a queued job waits."""

    position: int
    """Position in the queue; 1 is next."""
    reason: str
    """For people: a sentence that says what it waits for."""
    estimated_start_at: datetime | None
    """Null where it cannot be known."""


class DeviceOfJob(BaseModel):
    worker: str
    number: int


class TrackingOut(BaseModel):
    type: Literal["mlflow", "wandb"]
    url: str | None
    """Address of the tracker."""
    status: Literal["waiting", "following", "retrying", "complete", "given_up"]
    """waiting: nothing was sent so far. retrying: the last try failed. given_up: it failed until 7 days after the job's
    end."""
    run: str | None
    """Id of the run in the tracker."""
    step: int
    """The last step that the tracker has."""
    behind: int
    """Number of steps that it lacks."""
    error: str | None
    """Error of the last try."""
    next_attempt_at: datetime | None
    """Time of the next try, after one that failed."""


class JobOut(BaseModel):
    id: str
    name: str | None
    owner: str
    status: JobStatus
    requested_action: RequestedAction | None
    """What the running job was requested to do and has not done yet. "force_cancel" is a cancel without time to save;
    "preempt" saves and goes back to the queue, for a job of a higher priority."""
    priority: int
    queue: Queue | None
    """Null for a job that is not queued, and in the response to POST /jobs."""
    devices: list[DeviceOfJob]
    """Devices that it holds, until all its processes there are gone."""
    attempt: int
    retries: int
    """Infrastructure failures in a row without progress."""
    not_before: datetime | None
    """Time until which it waits after such a failure."""
    sweep_id: str | None
    """The sweep that it is a run of."""
    batch: dict[str, Any] | None
    """Replaces the recipe's batch, which did not fit into the device's memory."""
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    recipe: dict[str, Any]
    command: str | None
    """Command of the latest attempt, for a shell on the worker's machine."""
    progress: Progress | None
    tracking: list[TrackingOut]
    """The trackers that get the run, and how far they are."""
    failure: FailureOut | None
    exit_report: ExitReport | None
    """How the latest attempt's processes ended: when they were to stop and when all were gone, which ones had to be
    killed, and the bytes in use on each GPU before and after."""


class JobPage(BaseModel):
    data: list[JobOut]
    has_more: bool


class JobSummary(BaseModel):
    """A job in the live table. Unknown values are null."""

    id: str
    name: str | None
    owner: str
    status: JobStatus
    requested_action: RequestedAction | None
    priority: int
    model: str
    dataset: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    retries: int
    step: int | None
    total_steps: int | None
    progress: float | None
    eta_seconds: float | None
    loss: float | None
    eval_loss: float | None
    losses: list[float]
    """At most 24 losses at even distances over the whole curve, the last step's at the end."""
    queue: Queue | None
    devices: list[str]
    """As WORKER:NUMBER."""
    failure_code: FailureCode | None
    failure_message: str | None
    sweep_id: str | None
    """The sweep that it is a run of."""
    tags: dict[str, str]


class JobChanges(BaseModel):
    """Data of an event `jobs`."""

    jobs: list[JobSummary]
    deleted: list[str] = []
    """Ids of jobs that are gone."""
    reset: bool
    """True where the jobs are all that there are, and replace what the client has."""


class JobDeleted(BaseModel):
    id: str
    deleted: Literal[True] = True


def job_out(view: JobView) -> JobOut:
    job, latest = view.job, view.latest
    return JobOut(
        id=job.id,
        name=job.name,
        status=job.status,
        owner=job.owner,
        requested_action=job.requested_action,
        priority=job.priority,
        queue=queue(view.wait) if view.wait else None,
        devices=[DeviceOfJob(worker=device.worker, number=device.number) for device in view.devices],
        attempt=job.attempt,
        retries=job.retries,
        not_before=job.not_before,
        sweep_id=job.sweep_id,
        batch=job.batch,
        worker=job.worker,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        recipe=job.recipe,
        command=job.command,
        progress=_progress(job, latest) if latest else None,
        tracking=[_tracking(job, each, latest.metric.step if latest else 0) for each in view.trackings],
        failure=_failure(job),
        exit_report=ExitReport.model_validate(job.exit_report) if job.exit_report else None,
    )


def queue(wait: Wait) -> Queue:
    estimated_start_at = None if wait.estimated_start is None else datetime.fromtimestamp(wait.estimated_start, UTC)
    return Queue(position=wait.position, reason=wait.reason, estimated_start_at=estimated_start_at)


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


def _tracking(job: Job, tracking: TrackedRun, step: int) -> TrackingOut:
    status: Literal["waiting", "following", "retrying", "complete", "given_up"]
    if tracking.due_at is None:
        status = "given_up" if tracking.error else "complete"
    elif tracking.error:
        status = "retrying"
    else:
        status = "following" if tracking.run else "waiting"
    return TrackingOut(
        type=tracking.type,  # type: ignore[arg-type]  # a field of contract.tracking.Tracking
        url=job.recipe["tracking"][tracking.type].get("url"),
        status=status,
        run=tracking.run,
        step=tracking.step,
        behind=max(0, step - tracking.step),
        error=tracking.error,
        next_attempt_at=tracking.due_at if status == "retrying" else None,
    )


def _failure(job: Job) -> FailureOut | None:
    if job.failure is None:
        return None
    failure = Failure.model_validate(job.failure)
    return FailureOut(
        code=failure.code,
        message=failure.message,
        param=failure.param,
        retryable=failure.code.retryable,
        log_tail=job.log_tail,
    )
