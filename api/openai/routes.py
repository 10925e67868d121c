"""The routes of the OpenAI-compatible API; each is one call."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context
from api.datasets.creation import Form
from api.errors import InvalidParameter
from api.http.body import described, json_body
from api.http.idempotency import Keyed, Once, OnceStreamed
from api.http.ids import JobId
from api.http.json_schema import whole_schema
from api.http.ranges import hand_out
from api.openai import answers, files, jobs, models
from api.openai.answer_requests import ChatCompletionRequest, CompletionRequest
from api.openai.answer_schemas import ChatChunk, ChatCompletion, Completion
from api.openai.mapping import FineTuningJobRequest
from api.openai.schemas import (
    CheckpointList,
    Deleted,
    EventList,
    FileList,
    FileObject,
    FineTuningJob,
    JobList,
    Model,
    ModelList,
)
from contract import patterns

router = APIRouter(prefix="/v1", tags=["openai"])

_Limit = Annotated[int, Query(ge=1, le=100)]
_After = Annotated[str | None, Query(max_length=200)]

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _metadata(request: Request) -> dict[str, str] | None:
    """The filter of a list: metadata[k]=v, any number of them, or metadata=null for those without any. Raises
    InvalidParameter."""
    given = {found[1]: value for name, value in request.query_params.items() if (found := _METADATA.fullmatch(name))}
    for text in (*given, *given.values()):
        if "\0" in text:
            raise InvalidParameter("metadata", text, "no metadata has a NUL in it; leave it out")
    if given:
        return given
    return {} if request.query_params.get("metadata") == "null" else None


@router.post("/fine_tuning/jobs", openapi_extra=described(FineTuningJobRequest))
def create_fine_tuning_job(
    services: Context,
    who: Who,
    once: Once,
    body: Annotated[FineTuningJobRequest, Depends(json_body(FineTuningJobRequest))],
    force: bool = False,
) -> FineTuningJob:
    """Creates a job from OpenAI's fields. `recipe` may add fields of our own. A job that cannot fit into the memory of
    any worker's machine is refused, unless with `force`."""
    return jobs.create(services, who, once, body, force)


@router.get("/fine_tuning/jobs")
def list_fine_tuning_jobs(
    services: Context,
    who: Who,
    metadata: Annotated[dict[str, str] | None, Depends(_metadata)],
    limit: _Limit = 20,
    after: JobId | None = None,
) -> JobList:
    return jobs.newest(services, who, limit, after, metadata)


@router.get("/fine_tuning/jobs/{job_id}")
def get_fine_tuning_job(services: Context, who: Who, job_id: JobId) -> FineTuningJob:
    return jobs.get(services, who, job_id)


@router.post("/fine_tuning/jobs/{job_id}/cancel")
def cancel_fine_tuning_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.cancel(services, who, once, job_id)


@router.post("/fine_tuning/jobs/{job_id}/pause")
def pause_fine_tuning_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.pause(services, who, once, job_id)


@router.post("/fine_tuning/jobs/{job_id}/resume")
def resume_fine_tuning_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.resume(services, who, once, job_id)


@router.get("/fine_tuning/jobs/{job_id}/events")
def list_fine_tuning_events(
    services: Context, who: Who, job_id: JobId, limit: _Limit = 20, after: _After = None
) -> EventList:
    return jobs.events(services, who, job_id, limit, after)


@router.get("/fine_tuning/jobs/{job_id}/checkpoints")
def list_fine_tuning_checkpoints(
    services: Context, who: Who, job_id: JobId, limit: _Limit = 10, after: _After = None
) -> CheckpointList:
    return jobs.checkpoints(services, who, job_id, limit, after)


def _answers(whole: type[BaseModel], chunk: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The response in the description. Before OpenAPI 3.2 the schema of a stream is that of its events."""
    stream = {"schema": whole_schema(chunk)}
    what = "The answers; a stream of chunks with `stream`"
    return {200: {"description": what, "model": whole, "content": {"text/event-stream": stream}}}


@router.post(
    "/chat/completions",
    response_class=Response,
    responses=_answers(ChatCompletion, ChatChunk),
    openapi_extra=described(ChatCompletionRequest),
)
async def create_chat_completion(
    request: Request,
    services: Context,
    who: Who,
    body: Annotated[ChatCompletionRequest, Depends(json_body(ChatCompletionRequest))],
) -> Response:
    """Answers a conversation with a base model, a fine-tuned one or a checkpoint. 503 while no device is free for the
    model. What a model's server cannot do is refused by name."""
    return await answers.chat(services, who, request, body)


@router.post(
    "/completions",
    response_class=Response,
    responses=_answers(Completion, Completion),
    openapi_extra=described(CompletionRequest),
)
async def create_completion(
    request: Request,
    services: Context,
    who: Who,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
) -> Response:
    """Continues a text, without a chat template."""
    return await answers.complete(services, who, request, body)


_FILE_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "purpose": {"type": "string", "enum": ["fine-tune"]},
        "file": {"type": "string", "format": "binary"},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 31_536_000},
    },
}
_FILE_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILE_FORM}}}}


@router.post("/files", openapi_extra=_FILE_BODY)
async def create_openai_file(request: Request, services: Context, who: Who, once: OnceStreamed) -> FileObject:
    """Takes a file of examples, in any format that a dataset has."""
    return await files.create(services, who, once, Form.of(request))


@router.get("/files")
def list_openai_files(  # parameters: the request's
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    after: Annotated[str | None, Query(max_length=200)] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100, pattern=patterns.PURPOSE)] = None,
) -> FileList:
    return files.newest(services, who, limit, after, purpose, order == "asc")


@router.get("/files/{file_id}")
def get_openai_file(services: Context, who: Who, file_id: str) -> FileObject:
    return files.get(services, who, file_id)


@router.delete("/files/{file_id}")
def delete_openai_file(services: Context, who: Who, file_id: str) -> Deleted:
    """409 while a job that has not ended needs it."""
    return files.delete(services, who, file_id)


@router.get("/files/{file_id}/content", response_class=Response)
def download_openai_file(request: Request, services: Context, who: Who, file_id: str) -> Response:
    return hand_out(request, files.content(services, who, file_id))


@router.get("/models")
def list_openai_models(
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: Annotated[str | None, Query(max_length=5000)] = None,
) -> ModelList:
    """The base models, and then `limit` fine-tuned ones, newest first. OpenAI's route has no pages; here `after`, the
    name of the last model, gives the next one."""
    return models.newest(services, who, limit, after)


# A path: the names of a hub's models have a slash in them.
@router.get("/models/{model:path}")
def get_openai_model(services: Context, who: Who, model: str) -> Model:
    return models.get(services, who, model)


@router.delete("/models/{model:path}")
def delete_openai_model(services: Context, who: Who, model: str) -> Deleted:
    """Deletes a fine-tuned model: no later job can start from it. 409 while a job that has not ended starts from it."""
    return models.delete(services, who, model)
