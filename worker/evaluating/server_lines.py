"""The lines with which an inference server answers to an evaluation."""

from collections.abc import Iterator
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from contract.evaluation import EVALUATION_LINE, EVALUATIONS, EvaluationEnd, EvaluationLine, EvaluationRequest
from contract.inference import Refusal
from store.models import InferenceServer

_LONGEST_SILENCE = 60.0
"""Seconds between two lines of a server that is alive. It sends one every few seconds."""


class BrokenOff(Exception):
    """The server has ended, or answers no more."""


class NotThere(Exception):
    """No server answers at its address: it has ended, and its worker has not reported it yet."""


def read_lines(server: InferenceServer, request: EvaluationRequest) -> Iterator[EvaluationLine]:
    """To the last one, an EvaluationEnd or a Refusal. Raises NotThere, BrokenOff."""
    url, headers = f"http://{server.address}{EVALUATIONS}", {"authorization": f"Bearer {server.secret}"}
    timeout = httpx.Timeout(10, read=_LONGEST_SILENCE)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False, verify=False) as client,  # nothing here is encrypted
            client.stream("POST", url, content=request.model_dump_json(), headers=headers) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise NotThere(f"its address answers {response.status_code}")  # another program has got the port
            for text in _split(response):
                line = EVALUATION_LINE.validate_json(text)
                yield line
                if isinstance(line, (EvaluationEnd, Refusal)):
                    return
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotThere(str(error)) from error
    except httpx.TransportError as error:
        raise BrokenOff(str(error) or type(error).__name__) from error
    except ValidationError as error:
        raise BrokenOff(f"it writes a line that cannot be read: {error}") from error
    raise BrokenOff("it ended in the middle")


def _split(response: httpx.Response) -> Iterator[bytes]:
    """Whole lines. Only a line feed ends one: httpx's own lines also end at U+2028, which an answer may have."""
    rest = b""
    for part in response.iter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
