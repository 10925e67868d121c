"""Errors whose message is written for a user; the command prints the message and no traceback.

FinetunedError
    ServiceError            a request to the service failed
        Refused             the service answered with an error
            InvalidRequest  400, 413, 422: something in the request is wrong; `param` names it
            NotAllowed      401, 403: the key is missing, wrong, or may not do this
            NotFound        404
            Conflict        409: not in this state
            TooMany         429: a limit is reached
            ServiceFailed   500 and above
        Unreachable         the service did not answer
        UnexpectedAnswer    something answered, and not as this service does
        Damaged             a download differs from what the service has, or cannot be unpacked
        WaitTimeout         what was waited for did not happen in time; also a TimeoutError
    StackError              a part of a local service failed: finetuned.stack.process
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


class FinetunedError(Exception):
    pass


class ServiceError(FinetunedError):
    pass


class Refused(ServiceError):
    """The service answered with an error; the message is the service's."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status code."""
        self.code = code
        """Machine-readable reason, such as "recipe_invalid"."""
        self.param = param
        """Field of the request that is wrong, such as "batch.max_length"; None where no single field is."""
        self.request_id = request_id
        """The request's id in the service's log."""


class InvalidRequest(Refused):
    pass


class NotAllowed(Refused):
    pass


class NotFound(Refused):
    pass


class Conflict(Refused):
    pass


class TooMany(Refused):
    pass


class ServiceFailed(Refused):
    pass


class Unreachable(ServiceError):
    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"no finetuned service answers at {url} ({error or type(error).__name__})")
        self.url = url


class UnexpectedAnswer(ServiceError):
    pass


class Damaged(ServiceError):
    pass


class WaitTimeout(ServiceError, TimeoutError):
    pass


_KINDS = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 429: TooMany}


def error_of(response: httpx.Response) -> Refused:
    """The error that `response`, whose body has been read, is about."""
    status, request_id = response.status_code, response.headers.get("x-request-id")
    kind = ServiceFailed if status >= 500 else _KINDS.get(status, InvalidRequest)
    try:
        error = response.json()["error"]
        return kind(status, error["code"], error["message"], error.get("param"), request_id)
    except (ValueError, KeyError, TypeError):
        message = f"{response.request.url} answered {status}, and not as a finetuned service does"
        return kind(status, "unknown", message, None, request_id)
