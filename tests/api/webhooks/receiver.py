"""A receiver of webhooks: a real HTTP server that keeps what it was sent, and answers as a test wants."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook


@dataclass
class Receiver:
    url: str = ""
    port: int = 0
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 204 when there are no more."""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """The name of the requested certificate (SNI)."""
    redirect: str = ""
    hold: threading.Event | None = None
    """An answer waits for it."""

    def message(self, place: int, secret: str) -> dict[str, object]:
        """Raises standardwebhooks.webhooks.WebhookVerificationError."""
        return Webhook(secret).verify(self.bodies[place], self.headers[place])


@contextmanager
def receiving(certificate: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """With a certificate it speaks TLS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.append(self.rfile.read(int(self.headers["content-length"] or 0)))
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            if receiver.hold is not None:
                receiver.hold.wait(30)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            if receiver.redirect:
                self.send_header("location", receiver.redirect)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_port
        receiver.url = f"http://127.0.0.1:{receiver.port}/hook"
        if certificate is not None:
            certificate.sni_callback = lambda _, name, __: receiver.names.append(name)
            server.socket = certificate.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            if receiver.hold is not None:
                receiver.hold.set()
            server.shutdown()
