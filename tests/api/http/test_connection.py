"""What one connection without a key may take of the API's server."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.http.bounds import Bounds
from store.session import Sessions
from tests.api.http.raw_server import HEAD, MIB, Server, answer, received, refused, serving
from tests.support import service
from tests.support.waiting import until

DRIPPED_SECONDS = 20
"""A server without bounds reads for all of them, and one with the usual bounds a body; those of these tests are 0.4."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


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
def test_silent_connection_is_closed_without_an_answer(server: Server, sent: bytes) -> None:
    assert answer(server, sent) == b""


def test_dripped_headers_are_bounded_in_time(server: Server) -> None:
    began = time.monotonic()
    with server.connect() as connection:
        connection.sendall(HEAD)
        text = b""
        connection.settimeout(0.05)
        while not text and time.monotonic() - began < DRIPPED_SECONDS:
            connection.sendall(b"X-a: b\r\n")
            try:
                text = connection.recv(1 << 16)
            except TimeoutError:
                continue
    refused(text, 408)
    assert time.monotonic() - began < Bounds().head_seconds


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
        while not text and time.monotonic() - began < DRIPPED_SECONDS:
            connection.sendall(b"a")
            try:
                text = connection.recv(1 << 16)
            except TimeoutError:
                continue
    refused(text, 408)


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_drips_is_bounded_in_time(server: Server, chunked: bool) -> None:
    kind = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1000000"
    drop = b"1\r\na\r\n" if chunked else b"a"
    began = time.monotonic()
    with server.connect() as connection:
        connection.sendall(b"POST /length HTTP/1.1\r\nHost: a\r\n" + kind + b"\r\n\r\n")
        text = b""
        connection.settimeout(0.1)
        while not text and time.monotonic() - began < DRIPPED_SECONDS:
            connection.sendall(drop)
            try:
                text = connection.recv(1 << 16)
            except TimeoutError:
                continue
    assert "bytes a second" in refused(text, 408)["message"]
    assert time.monotonic() - began < DRIPPED_SECONDS


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


def test_client_that_reads_nothing_is_dropped(server: Server) -> None:
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


def test_other_protocols_get_an_error_of_our_shape(server: Server) -> None:
    for sent in (b"\x16\x03\x01\0\xa5\x01\0\0", b"GET \xff HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"{}\r\n\r\n"):
        assert refused(answer(server, sent), 400)["code"] == "bad_request"


@pytest.mark.exhaustive
def test_api_stays_fast_under_hostile_connections(
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
