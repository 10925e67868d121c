from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.jobs.view import JobView
from contract.exit_report import ExitReport
from contract.failure import FailureCode
from contract.status import JobStatus, RequestedAction
from store.jobs.usage import MeasuredUsage
from store.models import Job
from store.scheduling.reasons import CODES
from store.scheduling.situation import Wait


class Progress(BaseModel):
    """State after the last optimizer step."""

    step: int
    total_steps: int | None
    epoch: float
    loss: float
    eval_loss: float | None
    """Loss of the last evaluation."""
    reward_accuracy: float | None
    """Of the last evaluation; null for a method without rewards."""
    reward_margin: float | None
    """Of the last evaluation; null for a method without rewards."""
    best_step: int | None
    """Step of the best evaluation, 0 for the base model; known when the run has ended."""
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
    code: Annotated[str, Field(json_schema_extra={"enum": list(CODES)})]
    """For programs: the kind of reason."""
    values: dict[str, Any]
    """For programs: what the sentence names. A job of another owner is null."""
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
    """Also while a cluster has not started the running job; else null, as in the response to POST /jobs."""
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
    reward_accuracy: float | None
    """Of the last evaluation, as is reward_margin."""
    reward_margin: float | None
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


class JobUsage(BaseModel):
    """What a job has taken so far, to compare with its plan."""

    device: str | None
    """The trainer's name for the device of the latest attempt, which begins as that of a plan; null before the
    first."""
    devices: int | None
    """Number of devices of the latest attempt, on all machines together."""
    precision: str | None
    steps: int
    tokens: int
    """Tokens trained on."""
    peak_memory_bytes: int | None
    """Most bytes on one device: allocated on a GPU, or resident on a CPU."""
    expected_seconds: float | None
    """Time of training that similar jobs let expect when this one was created."""
    training_seconds: float
    """Time of its steps, without loading, evaluations and saving."""
    artifact_bytes: int
    """Bytes of its artifacts."""
    run_bytes: int | None
    """Bytes in its run folders besides; null where the latest attempt has not been measured yet."""


class JobDeleted(BaseModel):
    id: str
    deleted: Literal[True] = True


def job_json(view: JobView) -> str:
    """A JobOut. PostgreSQL has written all of it but the queue."""
    return with_queue(view.job.body, view.wait)


def with_queue(body: str, wait: Wait | None) -> str:
    """The text of a JSON object with one more field."""
    return f'{body.rstrip()[:-1]}, "queue" : {queue(wait).model_dump_json() if wait else "null"}}}'


def usage_out(job: Job, usage: MeasuredUsage) -> JobUsage:
    return JobUsage(
        device=usage.started.get("device"),
        devices=usage.started.get("world_size"),
        precision=usage.started.get("precision"),
        steps=usage.steps,
        tokens=usage.tokens,
        peak_memory_bytes=usage.peak_memory_bytes,
        expected_seconds=job.expected_seconds,
        training_seconds=usage.training_seconds,
        artifact_bytes=usage.artifact_bytes,
        run_bytes=job.run_bytes if job.attempt and job.measured_attempt == job.attempt else None,
    )


def queue(wait: Wait) -> Queue:
    estimated_start_at = None if wait.estimated_start is None else datetime.fromtimestamp(wait.estimated_start, UTC)
    return Queue(
        position=wait.position,
        reason=wait.reason,
        code=wait.code,
        values=dict(wait.values),
        estimated_start_at=estimated_start_at,
    )
