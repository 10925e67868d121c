"""The objects of the OpenAI-compatible API."""

from datetime import datetime
from typing import Any, Literal, cast

from pydantic import BaseModel

from api.openai.model_names import name_of
from contract.method import LEARNING_RATES
from contract.order import examples_per_step
from contract.recipe import Batch
from contract.status import JobStatus, RequestedAction
from store.files import RESULTS, ResultsFile, results_id
from store.jobs.progress import Latest
from store.models import Artifact, Dataset, Job, StepMetric


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class Hyperparameters(BaseModel):
    n_epochs: int | float | Literal["auto"]
    batch_size: int
    learning_rate_multiplier: float


class PreferenceHyperparameters(Hyperparameters):
    beta: float


class SupervisedOut(BaseModel):
    hyperparameters: Hyperparameters


class DpoOut(BaseModel):
    hyperparameters: PreferenceHyperparameters


class MethodOut(BaseModel):
    type: str
    """"supervised" or "dpo"; beyond OpenAI's, the name of another method of a recipe, which has the options."""
    supervised: SupervisedOut | None = None
    dpo: DpoOut | None = None


class WandbIntegrationOut(BaseModel):
    project: str
    name: str | None
    entity: str | None
    tags: list[str]


class IntegrationOut(BaseModel):
    type: Literal["wandb"] = "wandb"
    wandb: WandbIntegrationOut


OpenAiStatus = Literal["validating_files", "queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled"]


class FineTuningJob(BaseModel):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: OpenAiStatus
    hyperparameters: Hyperparameters
    method: MethodOut
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    estimated_finish: int | None
    integrations: list[IntegrationOut]
    metadata: dict[str, str] | None
    error: JobError | None
    recipe: dict[str, Any]
    """Beyond OpenAI's fields: the SDK gives it as job.recipe."""


class JobEventObject(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointMetrics(BaseModel):
    """Each evaluation takes all held-out examples, so "valid" and "full_valid" are the same."""

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None
    full_valid_reward_accuracy: float | None
    """Beyond OpenAI's fields, as is the next: what a method that compares answers has in place of token accuracies."""
    full_valid_reward_margin: float | None


class JobCheckpoint(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: CheckpointMetrics


FileStatus = Literal["uploaded", "processed", "error"]


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: FileStatus
    status_details: str | None
    expires_at: int | None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Deleted(BaseModel):
    id: str
    object: Literal["file", "model"]
    deleted: bool = True


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobEventObject]
    has_more: bool


class CheckpointList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobCheckpoint]
    has_more: bool


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool
    """Beyond OpenAI's fields: whether there are older models."""


def _status(job: Job) -> OpenAiStatus:
    """A job that a cluster has not started does not train."""
    if job.requested_action is RequestedAction.PAUSE:
        return "pausing"
    return "queued" if job.cluster_wait else job.status.value


def job_object(job: Job, latest: Latest | None, tokens: int, has_results: bool) -> FineTuningJob:
    """`tokens` is how many it has trained on."""
    hyperparameters = _hyperparameters(job.recipe)
    succeeded = job.status is JobStatus.SUCCEEDED
    return FineTuningJob(
        id=job.id,
        created_at=seconds(job.created_at),
        finished_at=None if job.finished_at is None else seconds(job.finished_at),
        model=(job.openai_request or {}).get("model") or job.recipe["model"],
        fine_tuned_model=name_of(job) if succeeded and job.model_deleted_at is None else None,
        organization_id=job.owner,
        status=_status(job),
        hyperparameters=hyperparameters,
        method=_method(job.recipe, hyperparameters),
        training_file=job.training_file or job.recipe["dataset"]["path"],
        validation_file=job.validation_file,
        result_files=[results_id(job.id)] if has_results else [],
        trained_tokens=tokens if succeeded else None,
        seed=job.recipe["seed"],
        estimated_finish=_finish(job, latest),
        integrations=_integrations(job.recipe),
        metadata=job.tags,
        error=_error(job),
        recipe=job.recipe,
    )


def seconds(time: datetime) -> int:
    return int(time.timestamp())


def _method(recipe: dict[str, Any], common: Hyperparameters) -> MethodOut:
    method = recipe.get("method", {"type": "sft"})  # jobs of before there were others have none
    match method["type"]:
        case "sft":
            return MethodOut(type="supervised", supervised=SupervisedOut(hyperparameters=common))
        case "dpo":
            of_dpo = PreferenceHyperparameters(**common.model_dump(), beta=method["beta"])
            return MethodOut(type="dpo", dpo=DpoOut(hyperparameters=of_dpo))
    return MethodOut(type=method["type"])


def _hyperparameters(recipe: dict[str, Any]) -> Hyperparameters:
    ranks = recipe["resources"]["gpus"] * recipe["resources"]["nodes"]
    epochs = recipe["schedule"]["epochs"]
    usual = LEARNING_RATES[recipe.get("method", {}).get("type", "sft")]
    return Hyperparameters(
        n_epochs="auto" if epochs is None else int(epochs) if epochs == int(epochs) else epochs,
        batch_size=examples_per_step(Batch.model_validate(recipe["batch"]), ranks),
        learning_rate_multiplier=round(recipe["optimizer"]["learning_rate"] / usual, 9),
    )


def _integrations(recipe: dict[str, Any]) -> list[IntegrationOut]:
    place = (recipe.get("tracking") or {}).get("wandb")
    if place is None:
        return []
    named = WandbIntegrationOut(
        project=place["project"], name=place["run_name"], entity=place["entity"], tags=place["tags"]
    )
    return [IntegrationOut(wandb=named)]


def _finish(job: Job, latest: Latest | None) -> int | None:
    if job.status is not JobStatus.RUNNING or latest is None:
        return None
    return int(latest.metric.time + latest.metric.eta_seconds)


def _error(job: Job) -> JobError | None:
    if job.failure is None:
        return None
    return JobError(code=job.failure["code"], message=job.failure["message"], param=job.failure["param"])


def checkpoint_object(
    job: Job, artifact: Artifact, metric: StepMetric | None, evaluation: dict[str, Any]
) -> JobCheckpoint:
    """`evaluation` is the data of the one at its step; empty without one."""
    step = artifact.step or 0
    accuracy = evaluation.get("token_accuracy")
    return JobCheckpoint(
        id=f"ftckpt_{job.id.removeprefix('job_')}_{step}",
        created_at=seconds(artifact.created_at),
        fine_tuning_job_id=job.id,
        fine_tuned_model_checkpoint=name_of(job, step if artifact.kind == "checkpoint" else None),
        step_number=step,
        metrics=CheckpointMetrics(
            step=step,
            train_loss=metric.loss if metric else None,
            train_mean_token_accuracy=metric.token_accuracy if metric else None,
            valid_loss=artifact.eval_loss,
            valid_mean_token_accuracy=accuracy,
            full_valid_loss=artifact.eval_loss,
            full_valid_mean_token_accuracy=accuracy,
            full_valid_reward_accuracy=evaluation.get("reward_accuracy"),
            full_valid_reward_margin=evaluation.get("reward_margin"),
        ),
    )


def file_object(dataset: Dataset) -> FileObject:
    return FileObject(
        id=dataset.id,
        bytes=dataset.bytes,
        created_at=seconds(dataset.created_at),
        filename=dataset.filename,
        purpose=dataset.purpose,
        status=cast(FileStatus, dataset.status),
        status_details=dataset.status_details,
        expires_at=None if dataset.expires_at is None else seconds(dataset.expires_at),
    )


def results_object(file: ResultsFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.artifact.bytes,
        created_at=seconds(file.created_at),
        filename=f"{file.artifact.job_id}.csv",
        purpose=RESULTS,
        status="processed",
        status_details=None,
        expires_at=None,
    )
