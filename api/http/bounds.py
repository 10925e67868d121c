"""Limits for clients that have not been identified yet: bytes and time of a request's head, and connections."""

import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

_RESERVED_FILES = 256
"""Files kept free for connections to the database and the broker, child processes and libraries."""
_MOST_CONNECTIONS = 10_000
_MOST_PER_ADDRESS = 200
_MOST_FILES = 1 << 20
"""The limit used where the hard limit is "unlimited"."""


@dataclass(frozen=True)
class Bounds:
    head_bytes: int = 64 << 10
    """Most bytes of request line and headers, of trailers, or of extensions between two chunks."""
    url_bytes: int = 16 << 10
    headers: int = 100
    pipelined: int = 16
    """Most requests that a client may send before it has the response to an earlier one."""
    head_seconds: float = 10.0
    """Time from the connection, or from the first byte of a later request, to the end of its headers."""
    body_seconds: float = 60.0
    """Time in which a body that has not ended may bring nothing, or less than body_bytes_per_second."""
    body_bytes_per_second: int = 1000
    idle_seconds: int = 20
    """Time between two requests. It is longer than clients keep idle connections (httpx and OpenAI's SDK: 5 s), so that
    none sends a request into a connection that is being closed."""
    unread_seconds: int = 120
    """Time while the other side takes no bytes, because it stopped reading or disappeared."""
    connections: int = _MOST_CONNECTIONS
    per_address: int = _MOST_PER_ADDRESS
    exempt: Sequence[str] = ("127.0.0.0/8", "::1")
    """Addresses and networks without a limit of their own; only `connections` limits them."""


def connection_limit() -> int:
    """Raises this process's limit of open files as far as possible and returns how many connections fit. Each may also
    read or write a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, min(_MOST_CONNECTIONS, (files - _RESERVED_FILES) // 2))


def sharing(address: str) -> str:
    """The address or network that counts as one client: for IPv6 a /64, which a single machine gets whole."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(ip_network((parsed.packed[:8] + bytes(8), 64)))


@dataclass
class OpenConnections:
    """The open connections of one process."""

    bounds: Bounds
    total: int = 0
    _of: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._exempt = [ip_network(each) for each in self.bounds.exempt]

    def enter(self, address: str) -> None:
        self.total += 1
        self._of[sharing(address)] += 1

    def leave(self, address: str) -> None:
        self.total -= 1
        client = sharing(address)
        self._of[client] -= 1
        if not self._of[client]:
            del self._of[client]

    def too_many(self) -> bool:
        return self.total > self.bounds.connections

    def too_many_of(self, address: str) -> bool:
        return self._of[sharing(address)] > self.bounds.per_address and not self._is_exempt(address)

    def _is_exempt(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:  # no TCP connection
            return True
        return any(parsed in network for network in self._exempt)
