"""The network that ranks on several machines talk over."""

import fcntl
import socket
import struct
from collections.abc import Mapping

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def environment(address: str, given: Mapping[str, str]) -> dict[str, str]:
    """What tells gloo and NCCL to use the interface of `address`, this machine's name or address, where `given` does
    not tell them already. By themselves gloo takes the host name's, often the loopback, and NCCL the first."""
    name = interface_of(socket.gethostbyname(address))
    if name is None:
        return {}
    chosen = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}  # "=": no other that begins so
    return {variable: value for variable, value in chosen.items() if variable not in given}


def interface_of(address: str) -> str | None:
    """The network interface whose first IPv4 address it is. Linux alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # it has none
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
