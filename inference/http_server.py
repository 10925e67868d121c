"""Takes requests over HTTP. Each has a thread of its own, which waits for the engine and writes its lines."""

import hmac
import socket
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, ValidationError

from contract.evaluation import EVALUATIONS, EvaluationRequest
from contract.failure import InputError
from contract.inference import ANSWERS, AnswerRequest, Done, Line, Refusal
from inference.alive import next_of
from inference.engine import AnswerEngine
from inference.evaluation import Lines, evaluate
from inference.prompts import Prompts, Refused

_MOST_BYTES = 4 << 20


class AnswerServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, secret: str, prompts: Prompts, engine: AnswerEngine) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, 0), _Handler)
        self.secret = secret
        self.prompts = prompts
        self.engine = engine


class _Handler(BaseHTTPRequestHandler):
    server: AnswerServer
    timeout = 30

    def do_POST(self) -> None:  # the name that the library calls
        given = self.headers.get("authorization", "")
        replies = {ANSWERS: self._answers, EVALUATIONS: self._evaluation}
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.secret}".encode()):
            self._begin(HTTPStatus.UNAUTHORIZED)
        elif self.path not in replies or not 0 < int(self.headers.get("content-length", "0")) <= _MOST_BYTES:
            self._begin(HTTPStatus.BAD_REQUEST)
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._begin(HTTPStatus.OK)
            with suppress(OSError), closing(replies[self.path](body)) as lines:  # its reader may leave
                self._write_all(lines)

    def _write_all(self, lines: Iterable[BaseModel]) -> None:
        try:
            for line in lines:
                self._write(line)
        except Refused as error:
            self._write(error.refusal)
        except InputError as error:
            failure = error.failure
            self._write(Refusal(code=failure.code, message=failure.message, param=failure.param))
        except ValidationError as error:
            self._write(Refusal(code="invalid_request", message=str(error.errors(include_url=False)[0])))

    def _answers(self, body: bytes) -> Generator[Line, None, None]:
        """Closed early, it cancels them."""
        answers = self.server.prompts.read(AnswerRequest.model_validate_json(body))
        if (refusal := self.server.engine.submit(answers)) is not None:
            raise Refused(refusal)
        try:
            while True:
                line = yield from next_of(answers.lines)
                yield line
                if isinstance(line, (Done, Refusal)):
                    return
        finally:
            answers.cancelled = True

    def _evaluation(self, body: bytes) -> Lines:
        return evaluate(self.server.prompts, self.server.engine, EvaluationRequest.model_validate_json(body))

    def _begin(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("connection", "close")
        self.end_headers()

    def _write(self, line: BaseModel) -> None:
        self.wfile.write(line.model_dump_json().encode() + b"\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the API's log has each request."""


def port_of(server: AnswerServer) -> int:
    return int(server.server_address[1])
