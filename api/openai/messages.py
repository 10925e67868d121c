"""The events of a job as OpenAI's API words them, since scripts search the messages."""

from collections.abc import Sequence
from typing import Any, Literal

from api.openai.mapping import FineTuningJobRequest
from api.openai.model_names import name_of
from api.openai.schemas import JobEventObject
from contract.events import SCORES
from contract.status import JobStatus
from store.jobs.progress import StreamedEvent
from store.models import Job

_LEVELS: dict[str, Literal["info", "warn", "error"]] = {"info": "info", "warning": "warn", "error": "error"}


def first_messages(body: FineTuningJobRequest) -> Sequence[str]:
    """What the log of a new job begins with: its files are read before it is there."""
    validation = "" if body.validation_file is None else f" and validation file: {body.validation_file}"
    return (
        f"Validating training file: {body.training_file}{validation}",
        "Files validated, moving job to queued state",
    )


def event_object(job: Job, event: StreamedEvent) -> JobEventObject:
    cursor, data = event.cursor, event.data
    is_metric = event.type == "metric"
    return JobEventObject(
        id=f"ftevent-{job.id.removeprefix('job_')}-{cursor.seq}-{cursor.step}-{'m' if is_metric else 'e'}",
        created_at=int(data["time"]),
        level=_level(event),
        message=_message(job, event),
        type="metrics" if is_metric or event.type == "evaluation" else "message",
        data=_data(job, event),
    )


def _level(event: StreamedEvent) -> Literal["info", "warn", "error"]:
    if event.type == "log":
        return _LEVELS[event.data["level"]]
    if event.type == "status" and event.data["status"] == JobStatus.FAILED:
        return "error"
    return "warn" if event.type == "retry" else "info"


def _data(job: Job, event: StreamedEvent) -> dict[str, Any]:
    data = event.data
    match event.type:
        case "metric":
            names = ["step", "learning_rate", "grad_norm"]
            scores = _scores("train", data["loss"], data)
        case "evaluation":
            names = ["step"]
            scores = _scores("valid", data["eval_loss"], data) | _scores("full_valid", data["eval_loss"], data)
        case _:
            return {"type": event.type, **data}
    return {"total_steps": job.total_steps, **{name: data[name] for name in names}, **scores}


def _scores(part: str, loss: float, data: dict[str, Any]) -> dict[str, Any]:
    """With OpenAI's names of what it has."""
    named = {f"{part}_loss": loss, f"{part}_mean_token_accuracy": data.get("token_accuracy")}
    rewards = {f"{part}_{name}": data.get(name) for name in SCORES if name != "token_accuracy"}
    return {name: value for name, value in (named | rewards).items() if value is not None}


def _message(job: Job, event: StreamedEvent) -> str:
    data = event.data
    match event.type:
        case "metric":
            return f"Step {data['step']}/{job.total_steps or '?'}: training loss={data['loss']:.4f}"
        case "evaluation":
            return f"Step {data['step']}/{job.total_steps or '?'}: full validation loss={data['eval_loss']:.4f}"
        case "checkpoint" if data["final"]:
            return f"New fine-tuned model created: {name_of(job)}"
        case "checkpoint":
            return f"Checkpoint created at step {data['step']} with Snapshot ID: {name_of(job, data['step'])}"
        case "status":
            return _status_message(job, data)
        case "started":
            return f"Training started: {data['total_steps']} steps, {data['train_examples']} examples"
        case "phase":
            return f"{data['name']} done in {data['seconds']:.1f} s"
        case "sample":
            return f"Step {data['step']}: answer {data['index']} to a held-out prompt"
        case "done":
            return f"Training ended after step {data['step']}"
        case _:
            return str(data.get("message", event.type))


def _status_message(job: Job, data: dict[str, Any]) -> str:
    status, attempt = data["status"], data["attempt"]
    if (status, attempt) == (JobStatus.QUEUED, 0):
        return f"Created fine-tuning job: {job.id}"
    if (status, attempt) == (JobStatus.RUNNING, 1):
        return "Fine-tuning job started"
    if status == JobStatus.SUCCEEDED:
        return "The job has successfully completed"
    if status == JobStatus.FAILED:
        return f"The job failed: {job.failure['message']}" if job.failure else "The job failed"
    return f"The job is {status}, attempt {attempt}"
