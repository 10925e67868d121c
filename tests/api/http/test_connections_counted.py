"""How many connections one address may have, and what counts as its own."""

import socket
from pathlib import Path

import pytest

from api.http.bounds import Bounds, OpenConnections, sharing
from tests.api.http.raw_server import HEAD, Server, answer, refused, serving
from tests.support.waiting import until


def hold(server: Server, count: int) -> list[socket.socket]:
    """Connections with a stream on each."""
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(9) == b"HTTP/1.1 "
    return connections


@pytest.mark.parametrize(("bound", "status"), [("per_address", 429), ("connections", 503)])
def test_connections_over_the_limit_are_refused(tmp_path: Path, bound: str, status: int) -> None:
    with serving(tmp_path, "", **{bound: 5, "exempt": []}) as server:
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


def test_forwarded_addresses_count_from_trusted_proxies_alone(tmp_path: Path) -> None:
    forwarded = {"x-forwarded-for": "6.6.6.6, 192.0.2.7"}
    with serving(tmp_path) as direct:
        assert direct.get("/client", **forwarded).text == "127.0.0.1"
    with serving(tmp_path, "10.0.0.0/8, 127.0.0.1") as behind:
        assert behind.get("/client", **forwarded).text == "192.0.2.7"
        assert behind.get("/client").text == "127.0.0.1"
