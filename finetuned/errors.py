"""Errors whose message is written for a user; the command prints the message and no traceback.

FinetunedError
    ServiceError        a request to the service failed
        Refused         the service answered with an error
        Unreachable     the service did not answer
        Damaged         a download differs from what the service has, or cannot be unpacked
    StackError          a part of a local service failed: finetuned.stack.process
"""

import httpx


class FinetunedError(Exception):
    pass


class ServiceError(FinetunedError):
    pass


class Refused(ServiceError):
    """The service answered with an error; the message is the service's."""

    def __init__(self, status: int, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status code."""
        self.code = code
        """Machine-readable reason, such as "recipe_invalid"."""
        self.param = param
        """Field of the request that is wrong, such as "batch.max_length"; None where no single field is."""


class Unreachable(ServiceError):
    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"no finetuned service answers at {url} ({error or type(error).__name__})")
        self.url = url


class Damaged(ServiceError):
    pass


def raise_for_error(response: httpx.Response) -> None:
    """Raises Refused when `response` is an error."""
    if response.is_success:
        return
    response.read()
    try:
        error = response.json()["error"]
        raise Refused(response.status_code, error["code"], error["message"], error.get("param"))
    except (ValueError, KeyError, TypeError):
        message = f"{response.request.url} answered {response.status_code}, and not as a finetuned service does"
        raise Refused(response.status_code, "unknown", message, None) from None
