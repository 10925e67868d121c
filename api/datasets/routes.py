from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.auth.owner import Owner
from api.auth.who import Who
from api.context import Context
from api.datasets import as_tokens, creation, service
from api.datasets.as_tokens import AsTokens
from api.datasets.creation import Form
from api.datasets.schemas import (
    AboutDataset,
    DatasetDeleted,
    DatasetDetail,
    DatasetPage,
    DatasetReference,
    dataset_detail,
    dataset_out,
)
from api.http.body import read_body
from api.http.idempotency import OnceStreamed, with_body
from api.http.ids import DatasetId
from api.http.json_schema import whole_schema
from api.http.ranges import hand_out
from contract.method import MethodType
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


@router.post("/datasets", status_code=HTTPStatus.CREATED, openapi_extra=_BODY)
async def create_dataset(request: Request, services: Context, who: Who, once: OnceStreamed) -> DatasetDetail:
    """Takes a file of examples: as a form with the file `file` and, where wanted, `format` and `columns`; or, as JSON,
    one that is on the server, or that the server fetches from a hub. The rows of a large file are checked after this
    answer: its status is `uploaded` until that is done."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        body = await read_body(request)
        made = await run_in_threadpool(creation.refer, services, who, with_body(once, body), body)
    else:
        made = await creation.upload(services, who, once, Form.of(request))
    return dataset_detail(made)


@router.get("/datasets")
def list_datasets(
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: DatasetId | None = None,
    owner: Owner | None = None,
) -> DatasetPage:
    """Newest first. `owner` is for admins, who see the datasets of all owners."""
    found = service.list_datasets(services, who, limit, after, owner)
    return DatasetPage(data=[dataset_out(each) for each in found.rows], has_more=found.has_more)


@router.get("/datasets/{dataset_id}")
def get_dataset(services: Context, who: Who, dataset_id: DatasetId) -> DatasetDetail:
    return dataset_detail(service.get_dataset(services, who, dataset_id))


@router.delete("/datasets/{dataset_id}")
def delete_dataset(services: Context, who: Who, dataset_id: DatasetId) -> DatasetDeleted:
    """409 while a job that has not ended needs it."""
    service.delete_dataset(services, who, dataset_id)
    return DatasetDeleted(id=dataset_id, deleted=True)


@router.head("/datasets/{dataset_id}/content", include_in_schema=False)
@router.get("/datasets/{dataset_id}/content", response_class=Response)
def download_dataset(request: Request, services: Context, who: Who, dataset_id: DatasetId) -> Response:
    """Its bytes as they were uploaded, or with Range a part of them. The ETag is their SHA-256."""
    return hand_out(request, service.content(services, who, dataset_id))


async def _as_tokens(
    model: Annotated[
        str, Query(min_length=1, max_length=4096, description="A name under the server's models folder, or a path.")
    ],
    chat_template: Literal["chatml", "alpaca", "plain"] | None = None,
    max_length: Annotated[int, Query(ge=8, le=1_048_576)] = 2048,
    method: Annotated[MethodType | None, Query(description="The recipe's method.type.")] = None,
) -> AsTokens:
    return AsTokens(model, chat_template, max_length, method)


@router.get("/datasets/{dataset_id}/report")
def get_dataset_report(
    services: Context, who: Who, dataset_id: DatasetId, given: Annotated[AsTokens, Depends(_as_tokens)]
) -> TokenReport:
    """How long its examples are as a model's tokens, how many of these are learned, and what is cut at max_length."""
    return as_tokens.token_report_of(services, who, dataset_id, given)


# The request's query has these parts.
@router.get("/datasets/{dataset_id}/preview")
def preview_dataset(  # parameters: the request's
    services: Context,
    who: Who,
    dataset_id: DatasetId,
    given: Annotated[AsTokens, Depends(_as_tokens)],
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> Preview:
    """Rows as the model will see them: its chat template's text, and the tokens that are learned marked."""
    return as_tokens.preview_of(services, who, dataset_id, given, offset, limit)
