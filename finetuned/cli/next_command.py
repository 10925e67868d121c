"""The commands that messages suggest, with every option that they need to work as printed."""

import os
import shlex
from collections.abc import Mapping
from urllib.parse import urlsplit

from finetuned.address import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_URL, is_loopback

_SAME_TERMINAL: tuple[Mapping[str, str], ...] = (os.environ,)
_ANY_TERMINAL: tuple[Mapping[str, str], ...] = (os.environ, {})
"""Another terminal may have all of our variables, or none."""


def on_service(words: str, url: str, key: str | None = None) -> str:
    """A command for the service at `url`, for the terminal of the command that reached it. A key is a secret: KEY
    stands for it."""
    return _command(words, _service_options(url, key, _SAME_TERMINAL))


def on_own_service(words: str, url: str, needs_key: bool) -> str:
    """A command for another terminal than the one that runs the service at `url`."""
    return _command(words, _service_options(url, "" if needs_key else None, _ANY_TERMINAL))


def start_at(url: str) -> str | None:
    """The command that starts a service at `url`; None when that is another machine."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    if urlsplit(url).scheme != "http" or not is_loopback(host):
        return None
    options = []
    if host not in ((os.environ.get("FINETUNED_HOST") or DEFAULT_HOST), "localhost"):
        options += ["--host", host]
    if str(port) != (os.environ.get("FINETUNED_PORT") or str(DEFAULT_PORT)):
        options += ["--port", str(port)]
    return _command("up", options)


def _service_options(url: str, key: str | None, terminals: tuple[Mapping[str, str], ...]) -> list[str]:
    usual = {(each.get("FINETUNED_URL") or DEFAULT_URL).rstrip("/") for each in terminals}
    options = [] if usual == {url.rstrip("/")} else ["--url", url]
    has_key = all(key == (each.get("FINETUNED_API_KEY") or None) for each in terminals)
    return options if key is None or has_key else [*options, "--key", "KEY"]


def _command(words: str, options: list[str]) -> str:
    return " ".join(["finetuned", words, *map(shlex.quote, options)])
