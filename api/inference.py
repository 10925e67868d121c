"""Finds the inference server of a base model, and passes a request on to it."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus

import anyio
import httpx
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api.errors import RequestError
from contract.failure import Failure, FailureCode, InputError
from contract.inference import ANSWERS, LINE, Alive, AnswerRequest, Done, Line, Refusal
from store.models import InferenceServer
from store.scheduling import inference
from store.session import Sessions

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_LONGEST_WAIT_FOR_DEVICE = 5.0
_LONGEST_START = 180.0
_LONGEST_SILENCE = 60.0
"""Seconds between two lines of a server that is alive. It sends one every few seconds, but reads the prompt first."""
_SECONDS_BETWEEN_RENEWALS = 5.0
_CUT_OFF = "the answer was cut off: the model's server has ended; send the request again"


class InferenceUnavailable(RequestError):
    status, code = HTTPStatus.SERVICE_UNAVAILABLE, "model_unavailable"
    headers = {"retry-after": "5"}  # noqa: RUF012 - as of all of these classes


class Overloaded(RequestError):
    status, code = HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"
    headers = {"retry-after": "2"}  # noqa: RUF012 - as of all of these classes


class PromptRefused(RequestError):
    status, code = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_parameter"

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooShort(PromptRefused):
    code = "context_length_exceeded"


class CutOff(Exception):
    """The server ended in the middle of an answer, or says that the answer failed."""


class _NotThere(Exception):
    """No server answers at the address, or the one there is stopping."""


async def answer(sessions: Sessions, base: str, request: AnswerRequest) -> AsyncGenerator[Line, None]:
    """The lines of the server's answer, first a PromptTokens and last a Done, with an Alive from time to time. Waits
    until a server has started. Raises InferenceUnavailable and others for a request that is refused, and later
    CutOff."""
    began = time.monotonic()
    while True:
        server = await run_in_threadpool(_want, sessions, base)
        _check(server, time.monotonic() - began)
        if server.state == "ready":
            try:
                async with aclosing(_used_lines(sessions, server, request)) as lines:
                    async for line in lines:
                        yield line
                return
            except _NotThere:
                pass
        yield Alive()
        await anyio.sleep(_POLL_SECONDS)


def _want(sessions: Sessions, base: str) -> InferenceServer:
    with sessions.begin() as session:
        server = inference.want(session, base)
        session.expunge(server)
        return server


def _check(server: InferenceServer, waited: float) -> None:
    """Raises InferenceUnavailable, and InputError for a model that cannot be loaded."""
    if server.state == "failed":
        failure = Failure.model_validate(server.failure)
        if failure.code.retryable or failure.code in (FailureCode.OUT_OF_MEMORY, FailureCode.INTERNAL_ERROR):
            raise InferenceUnavailable(f"model: {server.base} cannot be loaded now: {failure.message}")
        raise InputError(failure.code, failure.message, "model")
    if server.state == "wanted" and waited > _LONGEST_WAIT_FOR_DEVICE:
        raise InferenceUnavailable(
            f"model: no device is free to answer with {server.base}; jobs or other models use them, or no worker runs; "
            "try again later"
        )
    if waited > _LONGEST_START:
        raise InferenceUnavailable(f"model: {server.base} is still being loaded; try again in a few seconds")


async def _used_lines(
    sessions: Sessions, server: InferenceServer, request: AnswerRequest
) -> AsyncGenerator[Line, None]:
    """The lines. While they come, the server counts as used."""
    renewed = time.monotonic()
    async with aclosing(_lines(server, request)) as lines:
        async for line in lines:
            yield line
            if time.monotonic() - renewed >= _SECONDS_BETWEEN_RENEWALS:
                renewed = time.monotonic()
                await run_in_threadpool(_use, sessions, server.id)


def _use(sessions: Sessions, server_id: str) -> None:
    try:
        with sessions.begin() as session:
            inference.use(session, server_id)
    except SQLAlchemyError as error:
        log.warning("an answer goes on without the database: %s", error)


async def _lines(server: InferenceServer, request: AnswerRequest) -> AsyncGenerator[Line, None]:
    """Raises _NotThere before the first line, CutOff, and what a Refusal says."""
    timeout = httpx.Timeout(10, read=_LONGEST_SILENCE)
    url, headers = f"http://{server.address}{ANSWERS}", {"authorization": f"Bearer {server.secret}"}
    begun = False
    try:
        # Its own client: an application may have several event loops. verify: nothing here is encrypted, and to read
        # the certificates takes longer than the request.
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False, verify=False) as client,
            client.stream("POST", url, content=request.model_dump_json(), headers=headers) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise _NotThere  # another program has got the port
            async for text in _split(response):
                line = LINE.validate_json(text)
                if isinstance(line, Refusal):
                    raise _error(line, begun)
                begun = begun or not isinstance(line, Alive)
                yield line
                if isinstance(line, Done):
                    return
    except httpx.TransportError as error:
        if not begun:
            raise _NotThere from error
        raise CutOff(_CUT_OFF) from error
    except ValidationError as error:
        log.exception("the server of %s writes a line that cannot be read", server.base)
        raise CutOff("the answer was cut off: it cannot be read; the API's log says more") from error
    if not begun:
        raise _NotThere
    raise CutOff(_CUT_OFF)


async def _split(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Whole lines. Only a line feed ends one: httpx's own lines also end at U+2028, which an answer may have."""
    rest = b""
    async for part in response.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line


def _error(refusal: Refusal, begun: bool) -> Exception:
    if begun:
        return CutOff(refusal.message)
    match refusal.code:
        case "overloaded":
            return Overloaded(refusal.message)
        case "unavailable":
            return _NotThere()
        case "answer_failed":
            return InferenceUnavailable(refusal.message)
        case "context_length_exceeded":
            return ContextTooShort(refusal.message, refusal.param)
    return PromptRefused(refusal.message, refusal.param)
