"""How much a client may take before anybody knows who it is: bytes and time of a request's head, and connections."""

import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

_RESERVED_FILES = 256
"""The database's and the broker's connections, child processes, libraries."""
_MOST_CONNECTIONS = 10_000
_MOST_PER_ADDRESS = 200
_MOST_FILES = 1 << 20
"""Where the hard limit says "unlimited"."""


@dataclass(frozen=True)
class Bounds:
    head_bytes: int = 64 << 10
    """Request line and headers, or trailers, or extensions between two pieces of a chunked body."""
    url_bytes: int = 16 << 10
    headers: int = 100
    pipelined: int = 16
    """Requests that were sent before the answer to an earlier one."""
    head_seconds: float = 10.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    body_seconds: float = 60.0
    """Without a byte of a body that is still to come."""
    idle_seconds: int = 20
    """Between two requests. Longer than clients keep idle connections (httpx and OpenAI's SDK: 5 s), so that none sends
    a request into a connection that is being closed."""
    unread_seconds: int = 120
    """While the other side takes no bytes: it reads no further, or is gone without a word."""
    connections: int = _MOST_CONNECTIONS
    per_address: int = _MOST_PER_ADDRESS
    exempt: Sequence[str] = ("127.0.0.0/8", "::1")
    """Addresses and networks that `connections` alone bounds."""


def connection_limit() -> int:
    """Raises this process's limit of open files as far as it may, and gives the connections that fit: each may read
    or write a file beside it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, min(_MOST_CONNECTIONS, (files - _RESERVED_FILES) // 2))


def sharing(address: str) -> str:
    """The address or network that one client is taken to have: of IPv6 a /64, which a single machine gets whole."""
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
    """Of one process."""

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
