"""Every error that leaves the API, in one shape: {"error": {"code", "message", "param", "type"}}.

Raised below, and answered here too: contract's InputError, store's errors, and of the API's own

RequestError
+-- InvalidParameter    422   a parameter that does not fit, besides those that FastAPI checks
    +-- InvalidBody     422   a field of a body
+-- BadForm             422   a body that is no whole form
+-- WrongKey            401   no key, or none that opens
+-- AdminOnly           403   another's affairs
+-- OriginNotAllowed       403   a web page's request, where no page may ask
+-- ArtifactGone        404   its row is there, its files are not
+-- TooLarge            413   a file of more bytes than are taken
+-- StorageFull         507   the server's disk
+-- RangeOutside        416   a part that begins behind the end
+-- RequestInProgress         409   the same request was sent before, and is not done
+-- TooManyRequests     429
+-- NotReady            503   a part of the service is not there
"""

import logging
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from api.json_schema import whole_schema
from contract.failure import InputError
from contract.field_errors import plain, problems
from contract.quote import cut, printable, quote
from storage.errors import StorageUnavailable
from store.errors import (
    ArtifactNotFound,
    DatasetInUse,
    DatasetNotFound,
    DeliveryNotFound,
    ExportNotFound,
    IllegalMove,
    JobNotFound,
    KeyNotFound,
    ModelNotFound,
    QuotaExceeded,
    RequestOvertaken,
    RequestReused,
    WebhookNotFound,
)

log = logging.getLogger(__name__)


class RequestError(Exception):
    pass


class InvalidParameter(RequestError):
    def __init__(self, param: str, given: str, wanted: str) -> None:
        super().__init__(f"{param}: got {quote(given)}; {wanted}")
        self.param = param


class InvalidBody(InvalidParameter):
    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        self.param, message = next(iter(problems(model, error.errors(include_url=False)).items()))
        self.param = self.param or "body"
        RequestError.__init__(self, message)


class BadForm(RequestError):
    pass


class WrongKey(RequestError):
    pass


class AdminOnly(RequestError):
    pass


class OriginNotAllowed(RequestError):
    pass


class NotReady(RequestError):
    pass


class RequestInProgress(RequestError):
    pass


class TooManyRequests(RequestError):
    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class ArtifactGone(RequestError):
    def __init__(self, job_id: str, name: str) -> None:
        super().__init__(f"the files of artifact {name} of job {job_id} are no longer on the server")


class TooLarge(RequestError):
    def __init__(self, largest: int) -> None:
        super().__init__(f"the file has more than {largest} bytes, the most that the service takes; split it")


class StorageFull(RequestError):
    pass


class RangeOutside(RequestError):
    def __init__(self, size: int, given: str) -> None:
        super().__init__(f"Range: got {quote(given)}; there are {size} bytes, so that the last one is {size - 1}")
        self.size = size


class ErrorOut(BaseModel):
    code: str
    """For programs."""
    message: str
    """For people: what was given, what is wrong with it, what would do."""
    param: str | None
    """The field or parameter at fault, where there is one."""
    type: Literal["invalid_request_error", "server_error"]


class ErrorAnswer(BaseModel):
    error: ErrorOut


def _described(what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": whole_schema(ErrorAnswer)}}}


DESCRIBED: dict[int | str, dict[str, Any]] = {
    "4XX": _described("It was not done, for what was asked"),
    "5XX": _described("It was not done, for a fault of the service"),
    # Else FastAPI describes one of its own.
    422: _described("What was given does not fit"),
}
"""For the API's description of itself."""


def install(app: FastAPI) -> None:
    app.add_exception_handler(InputError, _input_error)
    app.add_exception_handler(JobNotFound, _not_found)
    app.add_exception_handler(ArtifactNotFound, _not_found)
    app.add_exception_handler(ExportNotFound, _not_found)
    app.add_exception_handler(KeyNotFound, _not_found)
    app.add_exception_handler(ModelNotFound, _not_found)
    app.add_exception_handler(DatasetNotFound, _not_found)
    app.add_exception_handler(DatasetInUse, _dataset_in_use)
    app.add_exception_handler(TooLarge, _too_large)
    app.add_exception_handler(StorageFull, _storage_full)
    app.add_exception_handler(StorageUnavailable, _storage_unavailable)
    app.add_exception_handler(BadForm, _bad_form)
    app.add_exception_handler(WrongKey, _wrong_key)
    app.add_exception_handler(AdminOnly, _admin_only)
    app.add_exception_handler(RequestInProgress, _request_in_progress)
    app.add_exception_handler(RequestOvertaken, _request_in_progress)
    app.add_exception_handler(TooManyRequests, _too_many_requests)
    app.add_exception_handler(QuotaExceeded, _quota_exceeded)
    app.add_exception_handler(RequestReused, _request_reused)
    app.add_exception_handler(WebhookNotFound, _not_found)
    app.add_exception_handler(DeliveryNotFound, _not_found)
    app.add_exception_handler(NotReady, _not_ready)
    app.add_exception_handler(IllegalMove, _illegal_move)
    app.add_exception_handler(InvalidParameter, _invalid_parameter)
    app.add_exception_handler(OriginNotAllowed, _origin_not_allowed)
    app.add_exception_handler(ArtifactGone, _artifact_gone)
    app.add_exception_handler(RangeOutside, _range_outside)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(NoConnectionFree, _database_away)
    app.add_exception_handler(Exception, _unexpected)


def _answer(status: int, code: str, message: str, param: str | None = None) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    # Whoever prints it prints no control characters that a request brought in.
    param = None if param is None else printable(param)
    error = {"code": code, "message": printable(message), "param": param, "type": kind}
    return JSONResponse({"error": error}, status)


def _unfit(request: Request) -> HTTPStatus:
    """OpenAI's wire knows no 422: code that catches its SDK's BadRequestError is to catch ours."""
    of_openai = request.url.path.startswith("/v1/")
    return HTTPStatus.BAD_REQUEST if of_openai else HTTPStatus.UNPROCESSABLE_ENTITY


def _input_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    failure = error.failure
    return _answer(_unfit(request), failure.code, failure.message, failure.param)


def _not_found(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.NOT_FOUND, "not_found", str(error))


def _not_ready(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", str(error))


def _illegal_move(_: Request, error: Exception) -> JSONResponse:
    answer = _answer(HTTPStatus.CONFLICT, "illegal_state", str(error))
    # The openai SDK repeats a POST that met a 409, unless it is told that this cannot help.
    answer.headers["x-should-retry"] = "false"
    return answer


def _bad_form(request: Request, error: Exception) -> JSONResponse:
    return _answer(_unfit(request), "invalid_parameter", f"body: {error}", "body")


def _dataset_in_use(_: Request, error: Exception) -> JSONResponse:
    answer = _answer(HTTPStatus.CONFLICT, "dataset_in_use", str(error))
    answer.headers["x-should-retry"] = "false"
    return answer


def _too_large(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", str(error), "file")


def _storage_full(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.INSUFFICIENT_STORAGE, "storage_full", str(error))


def _storage_unavailable(_: Request, error: Exception) -> JSONResponse:
    log.error("the storage is away: %s", error)
    message = "the storage does not answer; try again in a few seconds"
    answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "storage_unavailable", message)
    answer.headers["retry-after"] = "2"
    return answer


def _wrong_key(_: Request, error: Exception) -> JSONResponse:
    answer = _answer(HTTPStatus.UNAUTHORIZED, "invalid_api_key", str(error))
    answer.headers["www-authenticate"] = "Bearer"
    return answer


def _admin_only(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.FORBIDDEN, "admin_only", str(error))


def _request_in_progress(_: Request, error: Exception) -> JSONResponse:
    answer = _answer(HTTPStatus.CONFLICT, "request_in_progress", str(error))
    answer.headers["retry-after"] = "2"
    return answer


def _too_many_requests(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TooManyRequests)
    answer = _answer(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", str(error))
    answer.headers["retry-after"] = str(error.seconds)
    return answer


def _quota_exceeded(_: Request, error: Exception) -> JSONResponse:
    answer = _answer(HTTPStatus.TOO_MANY_REQUESTS, "quota_exceeded", str(error))
    answer.headers["x-should-retry"] = "false"
    return answer


def _request_reused(request: Request, error: Exception) -> JSONResponse:
    return _answer(_unfit(request), "idempotency_key_reused", str(error), "Idempotency-Key")


def _invalid_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InvalidParameter)
    return _answer(_unfit(request), "invalid_parameter", str(error), error.param)


def _origin_not_allowed(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.FORBIDDEN, "origin_not_allowed", str(error))


def _artifact_gone(_: Request, error: Exception) -> JSONResponse:
    return _answer(HTTPStatus.NOT_FOUND, "artifact_gone", str(error))


def _range_outside(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RangeOutside)
    answer = _answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range_not_satisfiable", str(error), "Range")
    answer.headers["content-range"] = f"bytes */{error.size}"
    return answer


def _bad_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _invalid_parameter(request, InvalidParameter(str(first["loc"][1]), first["input"], plain(first)))


def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    message = f"{request.method} {cut(request.url.path, 200)}: {error.detail}"
    answer = _answer(status, code, message)
    answer.headers.update(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["allow"] = ", ".join(_methods(request))
    return answer


def _hung_up(request: Request, _: Exception) -> JSONResponse:
    """For the log and the counts; a client that has closed its connection reads no answer."""
    return _answer(HTTPStatus.BAD_REQUEST, "bad_request", "the body ends before all of it came; send the request again")


def _methods(request: Request) -> list[str]:
    """Of all routes with that path: the router names those of the first one alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in found for method in route.methods or ()})


def _database_away(_: Request, error: Exception) -> JSONResponse:
    log.error("the database is away: %s", error)
    message = "the database does not answer; try again in a few seconds"
    answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", message)
    answer.headers["retry-after"] = "2"
    return answer


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.state.request_id
    log.error("request %s failed", request_id, exc_info=error)
    message = f"the service failed; its log tells of request {request_id}"
    answer = _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message)
    # This answer is sent outside all middleware.
    answer.headers["x-request-id"] = request_id
    return answer
