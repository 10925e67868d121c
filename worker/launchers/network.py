"""Chooses the network interface that ranks on several machines use."""

import fcntl
import socket
import struct
from collections.abc import Mapping

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def environment(address: str, given: Mapping[str, str]) -> dict[str, str]:
    """Variables that make gloo and NCCL use the interface of `address`, this machine's name or IP address.

    What `given` already sets stays. By itself gloo uses the interface of the host name, often the loopback, and NCCL
    the first one.
    """
    name = interface_of(socket.gethostbyname(address))
    if name is None:
        return {}
    chosen = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}  # "=" matches the whole name
    return {variable: value for variable, value in chosen.items() if variable not in given}


def interface_of(address: str) -> str | None:
    """The network interface whose first IPv4 address is `address`. Linux only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(query, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
