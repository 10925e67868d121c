"""The commands that messages name: with the options that they need to work as they are printed."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from finetuned.client import DEFAULT_URL
from finetuned.stack.settings import DEFAULT_HOST, DEFAULT_PORT, default_home, is_loopback

_SAME_TERMINAL: tuple[Mapping[str, str], ...] = (os.environ,)
_ANOTHER_TERMINAL: tuple[Mapping[str, str], ...] = (os.environ, {})
"""Where somebody may run a command: there may be none of our variables, or all of them."""


def on_service(words: str, url: str, key: str | None = None) -> str:
    """A command for the service at `url`, to follow one that reached it. A key is a secret, and is not printed: KEY
    stands for it."""
    return _command(words, _to_service(url, key, _SAME_TERMINAL))


def beside_service(words: str, url: str, needs_key: bool) -> str:
    """A command for a service that has this terminal for itself."""
    return _command(words, _to_service(url, "" if needs_key else None, _ANOTHER_TERMINAL))


def beside_home(words: str, home: Path) -> str:
    """A command on the home folder of such a service."""
    usual = [Path(each.get("FINETUNED_HOME") or default_home()).absolute() for each in _ANOTHER_TERMINAL]
    return _command(words, [] if set(usual) == {home.absolute()} else ["--home", str(home.absolute())])


def start_at(url: str) -> str | None:
    """The command that starts a service at `url`; None where that is not on this machine."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    if urlsplit(url).scheme != "http" or not is_loopback(host):
        return None
    options = []
    if host not in ((os.environ.get("FINETUNED_HOST") or DEFAULT_HOST), "localhost"):
        options += ["--host", host]
    if str(port) != (os.environ.get("FINETUNED_PORT") or str(DEFAULT_PORT)):
        options += ["--port", str(port)]
    return _command("up", options)


def _to_service(url: str, key: str | None, terminals: tuple[Mapping[str, str], ...]) -> list[str]:
    usual = {(each.get("FINETUNED_URL") or DEFAULT_URL).rstrip("/") for each in terminals}
    options = [] if usual == {url.rstrip("/")} else ["--url", url]
    has_key = all(key == (each.get("FINETUNED_API_KEY") or None) for each in terminals)
    return options if key is None or has_key else [*options, "--key", "KEY"]


def _command(words: str, options: list[str]) -> str:
    return " ".join(["finetuned", words, *map(shlex.quote, options)])
