from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.auth.who import Who
from api.context import Context
from api.datasets.uploads import Form
from api.http.idempotency import OnceStreamed
from api.http.ranges import hand_out
from api.openai import files
from api.openai.schemas import Deleted, FileList, FileObject
from contract import patterns

router = APIRouter(prefix="/v1", tags=["openai"])

_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "purpose": {"type": "string", "enum": ["fine-tune"]},
        "file": {"type": "string", "format": "binary"},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 31_536_000},
    },
}
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}


@router.post("/files", openapi_extra=_BODY)
async def create_openai_file(request: Request, services: Context, who: Who, once: OnceStreamed) -> FileObject:
    """Takes a file of examples, in any format that a dataset has."""
    return await files.create(services, who, once, Form.of(request))


@router.get("/files")
def list_openai_files(
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
