"""Every error that leaves the API, in one shape: {"error": {"code", "message", "param", "type"}}.

The API's own errors are the classes below, each with its status, code and headers. `ANSWERS` has those of the store,
the storage and the database; contract's InputError brings its own code and message.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.http.json_schema import whole_schema
from contract.failure import InputError
from contract.field_errors import describe_constraint, describe_errors
from contract.formatting import escape_unprintable, format_value, truncate
from contract.json_objects import REPEATED
from storage.errors import StorageUnavailable
from store.errors import (
    ArtifactNotFound,
    DatasetInUse,
    DatasetNotFound,
    DeliveryNotFound,
    EvaluationNotFound,
    ExportNotFound,
    IllegalMove,
    JobInUse,
    JobNotFound,
    KeyNotFound,
    ModelNotFound,
    PushNotFound,
    QuotaExceeded,
    RatingNotFound,
    RequestOvertaken,
    RequestReused,
    SecretNotFound,
    SweepNotFound,
    WebhookNotFound,
    WorkerNotFound,
)

log = logging.getLogger(__name__)


class RequestError(Exception):
    """What the API refuses. Its class says how that is answered."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]
    headers: Mapping[str, str] = MappingProxyType({})
    param: str | None = None


_NO_RETRY = {"x-should-retry": "false"}
"""The openai SDK repeats a POST that met a 409 or 429, unless it reads that this cannot help."""
_RETRY_SOON = {"retry-after": "2"}


class InvalidParameter(RequestError):
    status, code = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_parameter"

    def __init__(self, param: str, given: object, wanted: str) -> None:
        super().__init__(f"{param}: got {format_value(given)}; {wanted}")
        self.param = param


class InvalidBody(InvalidParameter):
    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        self.param, message = next(iter(describe_errors(model, error.errors(include_url=False)).items()))
        self.param = self.param or "body"
        RequestError.__init__(self, message)


class RepeatedField(InvalidParameter):
    def __init__(self, path: str) -> None:
        self.param = path
        RequestError.__init__(self, f"{path}: {REPEATED}")


class BadForm(RequestError):
    status, code, param = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_parameter", "body"

    def __init__(self, problem: str) -> None:
        super().__init__(f"body: {problem}")


class WrongKey(RequestError):
    status, code, headers = HTTPStatus.UNAUTHORIZED, "invalid_api_key", {"www-authenticate": "Bearer"}


class WrongSignIn(RequestError):
    status, code, param = HTTPStatus.UNAUTHORIZED, "wrong_key", "key"


class AdminOnly(RequestError):
    status, code = HTTPStatus.FORBIDDEN, "admin_only"


class OriginNotAllowed(RequestError):
    status, code = HTTPStatus.FORBIDDEN, "origin_not_allowed"


class PageNotFound(RequestError):
    status, code = HTTPStatus.NOT_FOUND, "not_found"


class NotReady(RequestError):
    status, code = HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"


class RequestInProgress(RequestError):
    status, code, headers = HTTPStatus.CONFLICT, "request_in_progress", _RETRY_SOON


class TooManyRequests(RequestError):
    status, code = HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(seconds)}


class ArtifactGone(RequestError):
    status, code = HTTPStatus.NOT_FOUND, "artifact_gone"

    def __init__(self, job_id: str, name: str) -> None:
        super().__init__(f"the files of artifact {name} of job {job_id} are no longer on the server")


class TooLarge(RequestError):
    status, code, param = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "file"

    def __init__(self, largest: int) -> None:
        super().__init__(f"the file has more than {largest} bytes, the most that the service takes; split it")


class StorageFull(RequestError):
    status, code = HTTPStatus.INSUFFICIENT_STORAGE, "storage_full"


class RangeOutside(RequestError):
    status, code, param = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "Range"

    def __init__(self, size: int, given: str) -> None:
        super().__init__(
            f"Range: got {format_value(given)}; there are {size} bytes, so that the last one is {size - 1}"
        )
        self.headers = {"content-range": f"bytes */{size}"}


class ErrorOut(BaseModel):
    code: str
    """Code for programs."""
    message: str
    """For people: what was given, what is wrong with it, and what to do."""
    param: str | None
    """The field or parameter at fault, where there is one."""
    type: Literal["invalid_request_error", "server_error"]


class ErrorAnswer(BaseModel):
    error: ErrorOut


def _described(what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": whole_schema(ErrorAnswer)}}}


DESCRIBED: dict[int | str, dict[str, Any]] = {
    "4XX": _described("The request was not done, because of what it asks"),
    "5XX": _described("The request was not done, because the service failed"),
    # Else FastAPI describes one of its own.
    422: _described("A parameter or a field of the body is not valid"),
}
"""Responses in the OpenAPI description."""


class StatusAnswer(NamedTuple):
    """How an error is answered."""

    status: HTTPStatus
    code: str
    message: str | None = None
    """None: the error's own."""
    param: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    log: str | None = None
    """What the log says of it."""


_NOT_FOUND = StatusAnswer(HTTPStatus.NOT_FOUND, "not_found")
_DATABASE_UNAVAILABLE = StatusAnswer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "database_unavailable",
    "the database does not answer; try again in a few seconds",
    headers=_RETRY_SOON,
    log="the database is unavailable",
)

ANSWERS: dict[type[Exception], StatusAnswer] = {
    ArtifactNotFound: _NOT_FOUND,
    DatasetNotFound: _NOT_FOUND,
    DeliveryNotFound: _NOT_FOUND,
    ExportNotFound: _NOT_FOUND,
    EvaluationNotFound: _NOT_FOUND,
    JobNotFound: _NOT_FOUND,
    KeyNotFound: _NOT_FOUND,
    ModelNotFound: _NOT_FOUND,
    RatingNotFound: _NOT_FOUND,
    PushNotFound: _NOT_FOUND,
    SecretNotFound: _NOT_FOUND,
    SweepNotFound: _NOT_FOUND,
    WebhookNotFound: _NOT_FOUND,
    WorkerNotFound: _NOT_FOUND,
    DatasetInUse: StatusAnswer(HTTPStatus.CONFLICT, "dataset_in_use", headers=_NO_RETRY),
    JobInUse: StatusAnswer(HTTPStatus.CONFLICT, "job_in_use", headers=_NO_RETRY),
    IllegalMove: StatusAnswer(HTTPStatus.CONFLICT, "illegal_state", headers=_NO_RETRY),
    QuotaExceeded: StatusAnswer(HTTPStatus.TOO_MANY_REQUESTS, "quota_exceeded", headers=_NO_RETRY),
    RequestOvertaken: StatusAnswer(HTTPStatus.CONFLICT, "request_in_progress", headers=_RETRY_SOON),
    RequestReused: StatusAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused", param="Idempotency-Key"),
    StorageUnavailable: StatusAnswer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "storage_unavailable",
        "the storage does not answer; try again in a few seconds",
        headers=_RETRY_SOON,
        log="the storage is unavailable",
    ),
    OperationalError: _DATABASE_UNAVAILABLE,
    NoConnectionFree: _DATABASE_UNAVAILABLE,
    # For the log and the counts: a client that has closed its connection reads no answer.
    ClientDisconnect: StatusAnswer(
        HTTPStatus.BAD_REQUEST, "bad_request", "the body ends before all of it came; send the request again"
    ),
}
"""Errors of the store, the storage, the database and the server."""


def install(app: FastAPI) -> None:
    for kind in (RequestError, InputError, RequestValidationError, *ANSWERS):
        app.add_exception_handler(kind, _handle)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


def _handle(request: Request, error: Exception) -> JSONResponse:
    answer = _answer_of(error)
    if answer.log is not None:
        log.error("%s: %s", answer.log, error)
    return _response(request, answer._replace(message=answer.message or str(error)))


def _answer_of(error: Exception) -> StatusAnswer:
    match error:
        case RequestError():
            return StatusAnswer(error.status, error.code, str(error), error.param, error.headers)
        case InputError(failure=failure):
            return StatusAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, failure.code, failure.message, failure.param)
        case RequestValidationError():
            first = error.errors()[0]
            return _answer_of(InvalidParameter(str(first["loc"][1]), first["input"], describe_constraint(first)))
    return next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)


def _response(request: Request, answer: StatusAnswer) -> JSONResponse:
    status = answer.status
    # OpenAI's API knows no 422: code that catches its SDK's BadRequestError is to catch ours.
    if status is HTTPStatus.UNPROCESSABLE_ENTITY and request.url.path.startswith("/v1/"):
        status = HTTPStatus.BAD_REQUEST
    # Whoever prints it prints no control characters that a request brought in.
    error = {
        "code": answer.code,
        "message": escape_unprintable(answer.message or ""),
        "param": None if answer.param is None else escape_unprintable(answer.param),
        "type": "server_error" if status >= 500 else "invalid_request_error",
    }
    return JSONResponse({"error": error}, status, dict(answer.headers))


def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = f"{request.method} {truncate(request.url.path, 200)}: {error.detail}"
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= {"allow": ", ".join(_methods(request))}
    return _response(request, StatusAnswer(status, status.name.lower(), message, headers=headers))


def _methods(request: Request) -> list[str]:
    """The methods of all routes with that path: the router names only those of the first."""
    routes = iter_route_contexts(request.app.routes)
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in found for method in route.methods or ()})


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.state.request_id
    log.error("request %s failed", request_id, exc_info=error)
    message = f"the service failed; its log has the details, under request {request_id}"
    # This answer is sent outside all middleware.
    headers = {"x-request-id": request_id}
    return _response(
        request, StatusAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message, headers=headers)
    )
