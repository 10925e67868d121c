"""A small HTTP server that answers as the API does, from what a test puts in it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeApi:
    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Status and body (JSON, or bytes) by "METHOD path"."""
    streams: list[str] = field(default_factory=list)
    """The text of the event stream, one for each connection; after it the connection ends."""
    downloads: dict[str, bytes] = field(default_factory=dict)
    """By path; handed out as the API does, in parts too."""
    breaks: list[int] = field(default_factory=list)
    """After so many bytes each next download breaks off."""
    ranges: list[str | None] = field(default_factory=list)
    """As the downloads requested them."""
    last_event_ids: list[str | None] = field(default_factory=list)
    """As the connections to the stream sent them."""
    busy: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    """Status, headers and body of the next answers, before those in `answers`; status 0 breaks the connection."""
    idempotency_keys: list[str | None] = field(default_factory=list)
    """As the POSTs sent them."""
    bodies: list[bytes] = field(default_factory=list)
    owners: list[str | None] = field(default_factory=list)
    """As the POSTs sent them."""
    authorizations: list[str | None] = field(default_factory=list)
    """Likewise."""


def event(kind: str, event_id: str, **data: Any) -> str:
    return f"event: {kind}\nid: {event_id}\ndata: {json.dumps({'time': 0.0, **data})}\n\n"


def job(status: str = "queued") -> dict[str, Any]:
    return {
        "id": "job_1",
        "name": "a name",
        "owner": "anna",
        "status": status,
        "queue": {"position": 3, "reason": "The job waits for 1 GPU."} if status == "queued" else None,
        "created_at": "2026-01-02T03:04:05Z",
        "progress": {"step": 3, "total_steps": 9, "loss": 1.25},
    }


@contextmanager
def running() -> Iterator[FakeApi]:
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if api.streams and path.endswith("/events"):
                api.last_event_ids.append(self.headers["last-event-id"])
                self._send(200, "text/event-stream", api.streams.pop(0).encode())
            elif path in api.downloads:
                self._hand_out(api.downloads[path])
            else:
                self._answer("GET", path)

        def _hand_out(self, content: bytes) -> None:
            requested = self.headers["range"]
            api.ranges.append(requested)
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
            self.send_response(206 if requested else 200)
            self.send_header("etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("content-length", str(len(content) - start))
            self.end_headers()
            end = start + api.breaks.pop(0) if api.breaks else len(content)
            self.wfile.write(content[start:end])

        def do_POST(self) -> None:
            api.idempotency_keys.append(self.headers["idempotency-key"])
            api.owners.append(self.headers["x-owner"])
            api.authorizations.append(self.headers["authorization"])
            api.bodies.append(self.rfile.read(int(self.headers["content-length"] or 0)))
            self._answer(self.command, self.path)

        do_PATCH = do_PUT = do_POST

        def do_DELETE(self) -> None:
            self._answer("DELETE", self.path)

        def _answer(self, method: str, path: str) -> None:
            if api.busy:
                status, headers, body = api.busy.pop(0)
                if status:
                    self._send(status, "application/json", json.dumps(body).encode(), headers)
                return
            status, body = api.answers[f"{method} {path}"]
            self._send(status, "application/json", body if isinstance(body, bytes) else json.dumps(body).encode())

        def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
