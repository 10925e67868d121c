"""An inference server without a model, which answers as a test says."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from contract.inference import ANSWERS, AnswerRequest, Done, Piece, PromptTokens
from store.models import InferenceServer

HELLO: Sequence[BaseModel] = (
    PromptTokens(tokens=3),
    Piece(index=0, text="Hel"),
    Piece(index=0, text="lo.", finish="stop"),
    Done(tokens=3),
)


@dataclass
class FakeInferenceServer:
    port: int = 0
    lines: Iterable[BaseModel] = HELLO
    requests: list[AnswerRequest] = field(default_factory=list)

    def add(self, session: Session, worker: str, base: str = "tiny") -> None:
        """Adds its row, on the first device of a worker that is registered."""
        address = f"127.0.0.1:{self.port}"
        row = {"id": f"srv_{self.port}", "base": base, "state": "ready", "secret": "secret", "address": address}
        session.add(InferenceServer(**row, worker=worker, number=0))


@contextmanager
def inference_server() -> Iterator[FakeInferenceServer]:
    fake = FakeInferenceServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["authorization"] == "Bearer secret"
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == ANSWERS:
                fake.requests.append(AnswerRequest.model_validate_json(body))
            self.send_response(200)
            self.end_headers()
            for line in fake.lines:
                self.wfile.write(line.model_dump_json().encode() + b"\n")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
