import asyncio

import pytest

from api.webhooks.public_address import Forbidden, addresses_of, check_url


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1.2.3/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[ff02::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::7f00:1]/",
        "http://[64:ff9b:1::808:808]/",
        "http://[fec0::1]/",
        "http://[feff::1]/",
        "http://[::7f00:1]/",
        "http://[::169.254.169.254]/",
        "http://[::8.8.8.8]/",
    ],
)
def test_private_address_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(Forbidden, match="FINETUNED_WEBHOOK_ALLOW_PRIVATE"):
        check_url(url, allow_private=False)
    check_url(url, allow_private=True)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1", "localhost"])
def test_name_is_refused_by_its_address(host: str) -> None:
    check_url(f"http://{host}/", allow_private=False)  # no more can be known without asking
    with pytest.raises(Forbidden):
        asyncio.run(addresses_of(host, 80, allow_private=False))
    assert set(asyncio.run(addresses_of(host, 80, allow_private=True))) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "url", ["http://93.184.216.34/", "https://[2606:2800:220:1::1]:8443/x?y", "https://example.com/"]
)
def test_public_one_is_taken(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("http://", "https://"),
        ("https://user:password@example.com/", "password"),
        ("https://example.com:99999/", "[Pp]ort"),
        ("https://[::1", "IPv6"),
    ],
)
def test_invalid_address_is_named(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_url(url, allow_private=True)
