from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.body import read_body
from api.deps import Bytes, DatasetId, Db, Settings
from api.idempotency import Once
from api.json_schema import whole_schema
from api.owner import Owner
from api.ranges import hand_out
from api.schemas.datasets import AboutDataset, DatasetDeleted, DatasetDetail, DatasetPage, DatasetReference
from api.services import datasets as service
from api.services.datasets import Place
from api.who import Who
from dataset.lengths import TokenReport
from dataset.preview import Preview

router = APIRouter(tags=["datasets"])

_FORM = whole_schema(AboutDataset)
_FORM["properties"] |= {
    "file": {"type": "string", "format": "binary"},
    "columns": {"type": "string", "description": "As JSON."},
}
_FORM["required"] = ["file"]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": whole_schema(DatasetReference)},
        },
    }
}


def _place(request: Request, db: Db, settings: Settings, storage: Bytes) -> Place:
    return Place(db, settings, storage, request.state.checks, request.state.sandbox)


Where = Annotated[Place, Depends(_place)]
Model = Annotated[str, Query(min_length=1, max_length=4096)]
"""A name under the server's models folder, or an allowed path."""
ChatTemplate = Literal["chatml", "alpaca", "plain"] | None
MaxLength = Annotated[int, Query(ge=8, le=1_048_576)]


@router.post("/datasets", status_code=HTTPStatus.CREATED, openapi_extra=_BODY)
async def create(request: Request, where: Where, who: Who, asked: Once) -> DatasetDetail:
    """Takes a file of examples: as a form with the file `file` and, where wanted, `format` and `columns`; or, as JSON,
    one that is on the server, or that the server fetches from a hub. Its rows are checked, for a large file after this
    answer: then its status is `uploaded` until that is done."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return await run_in_threadpool(service.refer, where, who, asked, await read_body(request))
    length = request.headers.get("content-length")
    return await service.upload(where, who, asked, content_type, length, request.stream())


@router.get("/datasets")
def newest(
    where: Where,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: DatasetId | None = None,
    owner: Owner | None = None,
) -> DatasetPage:
    """Newest first. `owner` is for admins, who see those of all."""
    return service.newest(where, who, limit, after, owner, None)


@router.get("/datasets/{dataset_id}")
def get(where: Where, who: Who, dataset_id: DatasetId) -> DatasetDetail:
    return service.get(where, who, dataset_id)


@router.delete("/datasets/{dataset_id}")
def delete(where: Where, who: Who, dataset_id: DatasetId) -> DatasetDeleted:
    """409 while a job that has not ended needs it."""
    return service.delete(where, who, dataset_id)


@router.head("/datasets/{dataset_id}/content", include_in_schema=False)
@router.get("/datasets/{dataset_id}/content", response_class=Response)
def content(request: Request, where: Where, who: Who, dataset_id: DatasetId) -> Response:
    """Its bytes as they were uploaded, or with Range a part of them. The ETag is their SHA-256."""
    return hand_out(request, service.content(where, who, dataset_id))


@router.get("/datasets/{dataset_id}/report")
def report(
    where: Where,
    who: Who,
    dataset_id: DatasetId,
    model: Model,
    chat_template: ChatTemplate = None,
    max_length: MaxLength = 2048,
) -> TokenReport:
    """How long its examples are as a model's tokens, how many of these are learned, and what is cut at max_length."""
    return service.tokens(where, who, dataset_id, model, chat_template, max_length)


@router.get("/datasets/{dataset_id}/preview")
def preview(
    where: Where,
    who: Who,
    dataset_id: DatasetId,
    model: Model,
    chat_template: ChatTemplate = None,
    max_length: MaxLength = 2048,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> Preview:
    """Rows as the model will see them: its chat template's text, and the tokens that are learned marked."""
    return service.preview(where, who, dataset_id, model, chat_template, max_length, offset, limit)
