"""A job's adapter in other formats: merged into the base model, portable, or GGUF."""

import json
import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from api.auth.who import Who
from api.context import Context, Services
from api.errors import ArtifactGone
from api.http.body import described, json_body
from api.http.idempotency import Once, idempotent
from api.http.ids import JobId
from contract import patterns
from contract.export import GGUF_FORMATS, PORTABLE_FORMATS, ExportFormat
from contract.failure import Failure, FailureCode, InputError
from contract.formatting import format_value, truncate
from contract.locate import locate_model
from contract.model.config import read_model_config
from contract.model.earlier_adapter import CONFIG
from contract.model.loaded_names import model_type
from contract.model.portable_adapter import check_gguf_type, check_portable
from store import artifacts, exports
from store.access import audit
from store.access.principal import Principal
from store.artifacts import ADAPTER
from store.earlier_adapter import first_init
from store.errors import ExportNotFound
from store.exports import Wanted
from store.jobs import jobs
from store.models import Export
from store.paging import page


class ExportIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: ExportFormat = "merged"
    """merged is the base model with the adapter merged into it, and merged-gguf-f16 and merged-gguf-q8_0 are that as a
    GGUF file of 16 or 8 bits for llama.cpp and Ollama; portable is the adapter in the one form that vLLM, SGLang and
    PEFT read alike, and gguf is that form as a GGUF file."""
    source: Annotated[str, StringConstraints(pattern=patterns.ARTIFACT)] = ADAPTER
    """One of the job's artifacts: the adapter, a checkpoint, or best.tar."""
    shard_size: Annotated[str, StringConstraints(pattern=patterns.SHARD_SIZE)] | None = None
    """The largest file of a merged model's weights, such as "500MB" or "2GB"; null is 5GB."""


class ExportOut(BaseModel):
    id: str
    job_id: str
    format: str
    shard_size: str | None
    source: str
    status: Literal["queued", "running", "succeeded", "failed"]
    attempt: int
    worker: str | None
    artifact: str | None
    """Name of the result among the job's artifacts."""
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None


class ExportPage(BaseModel):
    data: list[ExportOut]
    has_more: bool


router = APIRouter(tags=["exports"])


def _check_id(job_id: str, export_id: str) -> None:
    """Raises ExportNotFound for what can be no id: PostgreSQL does not take every text as a parameter."""
    if not re.fullmatch(r"exp_[0-9a-f]{24}", export_id):
        raise ExportNotFound(job_id, truncate(export_id))


@router.post("/jobs/{job_id}/exports", status_code=HTTPStatus.ACCEPTED, openapi_extra=described(ExportIn))
def create_export(
    services: Context, who: Who, once: Once, job_id: JobId, wanted: Annotated[ExportIn, Depends(json_body(ExportIn))]
) -> ExportOut:
    """Has a worker export what the job has saved in a format. The same request again gives the same export, unless that
    has failed. The result is an artifact of the job. An adapter that cannot have the format is refused with 422."""
    with idempotent(services, once) as turn:
        if turn.made is None and wanted.format != "merged":
            if wanted.shard_size is not None:
                raise _no_shards(wanted)
            _check_format(services, who, job_id, wanted)
        with services.sessions.begin() as session:
            if turn.made is not None:
                jobs.get(session, job_id, who.scope)
                return export_out(exports.get(session, job_id, turn.made))
            export, is_new = exports.request(session, job_id, Wanted(**wanted.model_dump()), who.scope)
            if is_new:
                facts = {"job": job_id, "format": export.format, "source": export.source}
                audit.record(session, who, "export.create", export.id, **facts)
            turn.complete(session, export.id)
            session.refresh(export)
            return export_out(export)


def _no_shards(wanted: ExportIn) -> InputError:
    message = f'shard_size: got {format_value(wanted.shard_size)}; only format "merged" has shards; leave it out'
    return InputError(FailureCode.RECIPE_INVALID, message, "shard_size")


def _check_format(services: Services, who: Principal, job_id: str, wanted: ExportIn) -> None:
    """Raises InputError for an adapter that has no such format, as far as the job and adapter_config.json tell, and
    ArtifactGone, StorageUnavailable."""
    with services.sessions.begin() as session:
        job = jobs.get(session, job_id, who.scope)
        model = str(job.recipe["model"])
        source = exports.exported_from(session, job_id, wanted.source)
        init = first_init(session, job)
    try:
        config = json.loads(b"".join(services.storage.read(artifacts.key(source, CONFIG))))
    except FileNotFoundError as error:
        raise ArtifactGone(job_id, source.name) from error
    if wanted.format in PORTABLE_FORMATS:
        check_portable(config, init)
    if wanted.format in GGUF_FORMATS:
        folder = locate_model(model, services.settings.folders)
        if folder is not None:  # a hub's model is read by the worker alone
            check_gguf_type(model_type(read_model_config(folder)))


@router.get("/jobs/{job_id}/exports")
def list_exports(
    services: Context,
    who: Who,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> ExportPage:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if after is not None:
            _check_id(job_id, after)
        found = page(exports.list_exports(session, job_id, limit + 1, after), limit)
        return ExportPage(data=[export_out(export) for export in found.rows], has_more=found.has_more)


@router.get("/jobs/{job_id}/exports/{export_id}")
def get_export(services: Context, who: Who, job_id: JobId, export_id: str) -> ExportOut:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(job_id, export_id)
        return export_out(exports.get(session, job_id, export_id))


def export_out(export: Export) -> ExportOut:
    return ExportOut.model_validate(export, from_attributes=True)
