"""Names and addresses by which a machine reaches itself."""

from ipaddress import ip_address


def is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
