"""One connection: uvicorn's, with bounds. Its parser, httptools, has none: it keeps a header of any size, and waits for
the rest of a request forever."""

import asyncio
import json
import logging
import socket
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.http.bounds import Bounds, OpenConnections

log = logging.getLogger(__name__)


class _Refusal(NamedTuple):
    status: HTTPStatus
    code: str
    message: str
    retry_after: int | None = None


class _Refused(Exception):
    """Ends the parsing."""


class Connection(HttpToolsProtocol):
    """Of a class that `bounded` gives, which has the bounds."""

    bounds: Bounds
    open: OpenConnections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._reading: Literal["nothing", "head", "body"] = "nothing"
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        """Whether a byte of the request that is being read has come."""
        self._size = 0
        """Bytes of the head that has come so far, in whole headers."""
        self._count = 0
        """Headers and trailers."""
        self._unparsed = 0
        """Bytes since the parser last gave something: it keeps a header until it is whole."""
        self._cycles: list[RequestResponseCycle] = []
        """Requests whose answers are not complete; several where they were pipelined."""
        self._refusal: _Refusal | None = None
        self._over = False
        """Nothing more is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.open.enter(self._address)
        if self.client:
            # Also while the other side's window is shut: the kernel then drops the connection.
            peer: socket.socket = transport.get_extra_info("socket")
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.bounds.unread_seconds * 1000)
        if self.open.too_many_of(self._address):
            most = self.bounds.per_address
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, f"more than {most} connections from this address; close some", 1)
        elif self.open.too_many():
            most = self.bounds.connections
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"more than {most} connections; try again in a few seconds", 1)
        else:
            self._read("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.leave(self._address)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        self._disconnect()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._reading == "nothing":
            self._read("head")
        self._unparsed += len(data)
        super().data_received(data)
        if not self._over and self._size + self._unparsed > self.bounds.head_bytes:
            self._answer(self._head_refusal())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._read("head")
        self._begun = True
        self._size = self._count = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._unparsed = 0
        self._size += len(url)
        if len(self.url) > self.bounds.url_bytes:
            message = f"the URL has more than {self.bounds.url_bytes} bytes; shorten it"
            self._refusal = _Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", message)
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unparsed = 0
        self._size += len(name) + len(value) + len(": \r\n")
        self._count += 1
        if self._size > self.bounds.head_bytes or self._count > self.bounds.headers:
            self._refusal = self._head_refusal()
            raise _Refused
        # Trailers must not become headers after these were read: a key among them was never checked.
        if self._reading == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        upgrade = bool(self.parser.should_upgrade())
        if upgrade and any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            message = "a request with a body cannot be upgraded; send it without Upgrade, and not by CONNECT"
            self._refusal = _Refusal(HTTPStatus.BAD_REQUEST, "bad_request", message)
            raise _Refused
        super().on_headers_complete()
        self._read("body")
        self._cycles = [*self._unanswered(), self.cycle]
        if upgrade:  # what comes next is of another protocol
            self.cycle.keep_alive = False
            self._over = True
        if len(self.pipeline) > self.bounds.pipelined:
            raise _Refused

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        # As many seconds later as these bytes may take: a body that drips falls behind, and its time runs out.
        self._since = min(self.loop.time(), self._since + len(body) / self.bounds.body_bytes_per_second)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self._begun = False
        self._reading = "nothing"
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """For what the parser refuses, and for what the callbacks above do."""
        refusal = self._refusal or _Refusal(HTTPStatus.BAD_REQUEST, "bad_request", "this is no whole HTTP/1.1 request")
        self._answer(refusal)

    def _head_refusal(self) -> _Refusal:
        message = f"the headers have more than {self.bounds.head_bytes} bytes, or are more than {self.bounds.headers}"
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return _Refusal(status, "request_header_fields_too_large", f"{message}; send less")

    def _refuse(self, status: HTTPStatus, message: str, retry_after: int) -> None:
        self._answer(_Refusal(status, "too_many_connections", message, retry_after))

    def _read(self, part: Literal["head", "body"]) -> None:
        """Begins the time in which a part has to come."""
        if self._reading == part:
            return
        self._reading = part
        self._since = self.loop.time()
        due = self._since + self._seconds()
        # A later timer does for an earlier one that is still set: it looks at what is read by then.
        if self._timer is None or self._timer.when() > due:
            self._set_timer(due)

    def _seconds(self) -> float:
        return self.bounds.head_seconds if self._reading == "head" else self.bounds.body_seconds

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._reading == "nothing" or self._over:
            return
        if self.flow.read_paused:
            self._since = self.loop.time()  # it is the service that does not read
        due = self._since + self._seconds()
        if due > self.loop.time():
            self._set_timer(due)
        elif self._begun:
            message = (
                f"the body brought nothing for {self._seconds():g} s, or less than {self.bounds.body_bytes_per_second} "
                "bytes a second; send the request again, without a pause"
            )
            if self._reading == "head":
                message = f"the headers took more than {self._seconds():g} s; send the request again"
            self._answer(_Refusal(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", message))
        elif self._unanswered():  # empty lines after a request
            self._reading = "nothing"
        else:
            self._over = True
            self.transport.close()

    def _unanswered(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _answer(self, refusal: _Refusal) -> None:
        """Closes the connection, with an answer unless that would stand inside of another or before it."""
        self._over = True
        log.info("refused", extra={"status": int(refusal.status), "code": refusal.code, "client": self._address})
        unanswered = self._unanswered()
        its_own = self._reading == "body" and len(unanswered) == 1 and not unanswered[0].response_started
        if its_own or not unanswered:
            self.transport.write(_bytes_of(refusal, self.server_state))
        self._disconnect()
        self.transport.close()

    def _disconnect(self) -> None:
        """uvicorn itself tells the last one alone of a pipeline."""
        for cycle in self._unanswered():
            cycle.disconnected = True
            cycle.message_event.set()


def _bytes_of(refusal: _Refusal, state: ServerState) -> bytes:
    status, code, message, retry_after = refusal
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = json.dumps({"error": {"code": code, "message": message, "param": None, "type": kind}}).encode()
    headers = [
        *state.default_headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *([(b"retry-after", b"%d" % retry_after)] if retry_after else []),
    ]
    return b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body])


def bounded(bounds: Bounds) -> type[Connection]:
    """Connections that are counted together."""
    return type("BoundedConnection", (Connection,), {"bounds": bounds, "open": OpenConnections(bounds)})
