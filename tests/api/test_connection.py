"""Raw connections to the API's server: what one without a key may take of it."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from api.bounds import Bounds, OpenConnections, sharing
from store.session import Sessions
from tests import service
from tests.service import free_port, until

SHORT = {"head_seconds": 0.4, "body_seconds": 0.4, "idle_seconds": 1, "unread_seconds": 1}
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MIB = 1 << 20


class Server:
    def __init__(self, folder: Path, proxies: str, bounds: dict[str, Any]) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        arguments = [str(self.port), json.dumps({**SHORT, **bounds}), proxies]
        command = [sys.executable, "-m", "tests.api.bounded_server", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: "running on" in self.log.read_text() or self.process.poll() is not None)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, trust_env=False)

    def memory(self, what: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{what}:")[2].split()[0]) << 10

    def clients(self) -> int:
        """Connections that are open."""
        return sum(
            each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(self.process.pid).net_connections()
        )


@contextmanager
def serving(folder: Path, proxies: str = "", **bounds: Any) -> Iterator[Server]:
    server = Server(folder, proxies, bounds)
    try:
        yield server
    finally:
        server.process.terminate()
        assert server.process.wait(20) in (0, -15)
        assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def answer(server: Server, *pieces: bytes) -> bytes:
    """What comes back until the server closes, or the client has sent all and is answered."""
    with server.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received(connection)


def refused(text: bytes, status: int) -> dict[str, Any]:
    assert text.startswith(f"HTTP/1.1 {status} ".encode()), text[:200]
    head, _, body = text.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"code", "message", "param", "type"}
    return error


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (HEAD + b"X: ", 431),
        (HEAD, 431),
        (b"GET /", 414),
        (b"GET /?", 414),
        (b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ", 431),
        (b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", 431),
        (b"\r\n", 0),
        (b"G" * 10, 400),
    ],
    ids=["value", "name", "path", "query", "trailer", "chunk extension", "empty lines", "method"],
)
def test_endless_part_of_a_head_is_refused_early(server: Server, before: bytes, status: int) -> None:
    piece = b"\r\n" * (MIB // 2) if not status else b"a" * MIB
    memory = server.memory("VmHWM")
    sent = 0
    with server.connect() as connection:
        try:
            connection.sendall(before)
            for _ in range(100):
                connection.sendall(piece)
                sent += MIB
        except (BrokenPipeError, ConnectionResetError):
            pass
        text = received(connection)
    refused(text, status or 431)
    assert sent < 16 * MIB  # what the kernel's buffers of both sides hold
    assert server.memory("VmHWM") - memory < 4 * MIB
    assert server.get().text == "/"


@pytest.mark.parametrize("pieces", [1, 7, 4000], ids=["at once", "in parts", "byte by byte"])
def test_headers_count_the_same_however_they_arrive(server: Server, pieces: int) -> None:
    def sent(headers: int) -> bytes:
        whole = HEAD.replace(b"GET", b"HEAD") + b"".join(b"X-%d: y\r\n" % n for n in range(headers - 2))
        whole += b"Connection: close\r\n\r\n"
        size = -(-len(whole) // pieces)
        return answer(server, *(whole[start : start + size] for start in range(0, len(whole), size)))

    assert sent(100).startswith(b"HTTP/1.1 200 ")
    assert refused(sent(101), 431)["code"] == "request_header_fields_too_large"


def test_large_but_allowed_heads_are_taken(server: Server) -> None:
    query = "q" * 15_000
    headers = {f"x-{number}": "v" * 5_000 for number in range(8)}
    found = httpx.get(f"http://127.0.0.1:{server.port}/?{query}", headers=headers, trust_env=False)
    assert found.status_code == 200


@pytest.mark.parametrize(
    "sent", [HEAD, HEAD + b"X-a: ", b"GET /", b"G", HEAD + b"\r\n" + HEAD], ids=["line", "header", "url", "G", "later"]
)
def test_half_a_request_is_answered_408_and_closed(server: Server, sent: bytes) -> None:
    text = answer(server, sent)
    assert text.count(b"HTTP/1.1 ") == 1 + sent.count(b"\r\n\r\n")
    last = text[text.rindex(b"HTTP/1.1 ") :]
    assert refused(last, 408)["code"] == "request_timeout"


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["silence", "empty line"])
def test_connection_that_asks_nothing_is_closed_without_a_word(server: Server, sent: bytes) -> None:
    assert answer(server, sent) == b""


def test_dripped_headers_are_bounded_in_time(server: Server) -> None:
    began = time.monotonic()
    with server.connect() as connection:
        connection.sendall(HEAD)
        text = b""
        connection.settimeout(0.05)
        while not text and time.monotonic() - began < 20:
            connection.sendall(b"X-a: b\r\n")
            try:
                text = connection.recv(1 << 16)
            except TimeoutError:
                continue
    refused(text, 408)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
    ids=["length", "chunked"],
)
def test_body_that_stands_still_is_dropped(server: Server, body: bytes) -> None:
    text = answer(server, b"POST /length HTTP/1.1\r\nHost: a\r\n" + body)
    assert refused(text, 408)["code"] == "request_timeout"


def test_chunk_extensions_are_no_progress_of_a_body(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        connection.settimeout(0.05)
        text, began = b"", time.monotonic()
        while not text and time.monotonic() - began < 20:
            connection.sendall(b"a")
            try:
                text = connection.recv(1 << 16)
            except TimeoutError:
                continue
    refused(text, 408)


def test_body_that_comes_slowly_is_read_whole(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(8):
            yield b"a" * 10
            time.sleep(0.1)

    found = httpx.post(f"http://127.0.0.1:{server.port}/length", content=pieces(), trust_env=False)
    assert found.text == "80"


def test_stream_outlives_the_bounds_of_requests(server: Server) -> None:
    found = server.get("/events")  # 1 s
    assert found.text.count(": ping") == 50


def test_idle_connection_is_closed_and_pool_goes_on(server: Server) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        assert client.get("/").status_code == 200
        until(lambda: not server.clients())
        assert client.get("/").status_code == 200


def test_client_that_reads_nothing_of_its_answer_is_dropped(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        until(server.clients)
        until(lambda: not server.clients())


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = [b"/headers", b"/2", b"/3"]
    text = answer(
        server,
        b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths),
        b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    found = [text.index(word) for word in (b"\r\nhost\r\n", b"\r\n/2\r\n", b"\r\n/3\r\n", b"\r\n/4\r\n")]
    assert found == sorted(found)


def test_thousands_of_pipelined_requests_are_not_kept(server: Server) -> None:
    memory = server.memory("VmHWM")
    flood = b"GET /headers HTTP/1.1\r\nHost: a\r\n\r\n" * 20_000
    assert answer(server, flood).count(b"HTTP/1.1 ") <= 1
    assert server.memory("VmHWM") - memory < 8 * MIB


def test_broken_later_request_spoils_no_answer(server: Server) -> None:
    text = answer(server, b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n", b"\0\0\0\r\n\r\n")
    assert text.count(b"HTTP/1.1 ") <= 1


def test_trailers_do_not_become_headers(server: Server) -> None:
    text = answer(
        server,
        b"POST /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        b"0\r\nAuthorization: Bearer x\r\n\r\n",
    )
    assert text.startswith(b"HTTP/1.1 200 ")
    assert b"authorization" not in text


def test_upgrade_is_passed_over_and_its_body_refused(server: Server) -> None:
    upgrade = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    text = answer(server, b"GET / HTTP/1.1\r\n" + upgrade + b"\r\n" + HEAD + b"\r\n")
    assert text.startswith(b"HTTP/1.1 200 ")
    assert text.count(b"HTTP/1.1 ") == 1
    text = answer(server, b"POST /length HTTP/1.1\r\n" + upgrade + b"Content-Length: 3\r\n\r\nabc")
    assert "Upgrade" in refused(text, 400)["message"]


def test_what_is_no_http_is_refused_in_the_shape_of_every_error(server: Server) -> None:
    for sent in (b"\x16\x03\x01\0\xa5\x01\0\0", b"GET \xff HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"{}\r\n\r\n"):
        assert refused(answer(server, sent), 400)["code"] == "bad_request"


def hold(server: Server, count: int) -> list[socket.socket]:
    """Connections with a stream on each."""
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(9) == b"HTTP/1.1 "
    return connections


@pytest.mark.parametrize(("bound", "status"), [("per_address", 429), ("connections", 503)])
def test_connections_beyond_the_bound_are_refused_until_others_close(tmp_path: Path, bound: str, status: int) -> None:
    with serving(tmp_path, **{bound: 5, "exempt": []}) as server:
        held = hold(server, 5)
        for _ in range(3):
            error = refused(answer(server), status)
            assert error["code"] == "too_many_connections"
        held.pop().close()
        until(lambda: answer(server, HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 "))
        for connection in held:
            connection.close()


def test_exempt_addresses_have_the_whole_bound(tmp_path: Path) -> None:
    with serving(tmp_path, per_address=2, connections=6) as server:
        held = hold(server, 6)
        refused(answer(server), 503)
        for connection in held:
            connection.close()


def test_ipv6_addresses_are_counted_by_their_network() -> None:
    bounds = Bounds(per_address=2, exempt=("fd00::/16",))
    ours = OpenConnections(bounds)
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff"):
        ours.enter(address)
    assert ours.too_many_of("2001:db8::3")
    assert not ours.too_many_of("2001:db8:0:1::1")
    assert sharing("::ffff:10.0.0.1") == sharing("10.0.0.1") != sharing("10.0.0.2")
    for address in ("fd00::1",) * 3:
        ours.enter(address)
    assert not ours.too_many_of("fd00::1")
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff", "fd00::1", "fd00::1", "fd00::1"):
        ours.leave(address)
    assert ours == OpenConnections(bounds)


def test_forwarded_addresses_count_from_trusted_proxies_alone(server: Server, tmp_path: Path) -> None:
    forwarded = {"x-forwarded-for": "6.6.6.6, 192.0.2.7"}
    assert server.get("/client", **forwarded).text == "127.0.0.1"
    with serving(tmp_path, "10.0.0.0/8, 127.0.0.1") as behind:
        assert behind.get("/client", **forwarded).text == "192.0.2.7"
        assert behind.get("/client").text == "127.0.0.1"


@pytest.mark.exhaustive
def test_shipped_api_stays_fast_beside_endless_headers_and_half_requests(
    sessions: Sessions, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    with service.running(tmp_path, database_url, broker_url, workers=()) as live:
        address = (live.client.base_url.host, live.client.base_url.port)
        half = [socket.create_connection(address) for _ in range(150)]
        for connection in half:
            connection.sendall(HEAD + b"X-a: ")
        with socket.create_connection(address) as endless:
            endless.sendall(HEAD + b"X: ")
            sent, slowest = 0, 0.0
            try:
                for _ in range(100):
                    endless.sendall(b"a" * MIB)
                    sent += MIB
                    began = time.monotonic()
                    live.client.get("/health/live").raise_for_status()
                    slowest = max(slowest, time.monotonic() - began)
            except (BrokenPipeError, ConnectionResetError):
                pass
            refused(received(endless), 431)
        assert sent < 16 * MIB
        assert slowest < 1
        for connection in half:
            connection.settimeout(20)
            refused(received(connection), 408)
            connection.close()
