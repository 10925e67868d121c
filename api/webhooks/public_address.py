"""Keeps webhooks away from what only this machine can reach: its own services, its network, a cloud's metadata."""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

_NAT64 = IPv6Network("64:ff9b::/96")
# Which Python counts as public, or only of late, and on which a network may answer nevertheless.
_PRIVATE = (
    IPv6Network("fec0::/10"),  # site-local: RFC 3879 only tells new networks not to have it
    IPv6Network("::/96"),  # IPv4-compatible: RFC 4291, 2.5.5.1
    IPv6Network("64:ff9b:1::/48"),  # a network's own translation to IPv4: RFC 8215
)

Address = IPv4Address | IPv6Address


class Forbidden(Exception):
    """An address to which no webhook may lead."""


def check_url(url: str, allow_private: bool) -> None:
    """Checks what can be checked without a name server. Raises ValueError, Forbidden with a message for people."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give a URL that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user and a password do not belong in it: every message is signed")
    if parts.port == 0:
        raise ValueError("port 0 is none")
    try:
        address = ip_address(parts.hostname)
    except ValueError:
        return
    if not allow_private:
        _check(address)


async def addresses_of(host: str, port: int, allow_private: bool) -> list[str]:
    """The addresses that the name has now. Connect to one of these, without a second lookup. Raises Forbidden,
    OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private:
        # Of all of them: a name that has a private one beside others means no good, or is not known to the public.
        for address in addresses:
            _check(ip_address(address))
    return addresses


def _check(address: Address) -> None:
    for each in _meant(address):
        if not each.is_global or each.is_multicast or any(each in network for network in _PRIVATE):
            raise Forbidden(
                f"{address} is not a public address; FINETUNED_WEBHOOK_ALLOW_PRIVATE=true allows it on this server"
            )


def _meant(address: Address) -> Iterator[Address]:
    """The address, and those that it embeds."""
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield address.teredo[1]
        if address in _NAT64:
            yield IPv4Address(int(address) & 0xFFFFFFFF)
