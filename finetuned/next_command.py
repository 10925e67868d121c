"""The commands that messages name: with the options that they need to work as they are printed, in the same shell."""

import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from finetuned.client import DEFAULT_URL
from finetuned.settings import DEFAULT_HOST, DEFAULT_PORT, default_home, is_loopback


def on_service(words: str, url: str, key: str | None = None) -> str:
    """A command for the service at `url`. A key is a secret, and is not printed: KEY stands for it."""
    options = []
    if url.rstrip("/") != (os.environ.get("FINETUNED_URL") or DEFAULT_URL).rstrip("/"):
        options += ["--url", url]
    if key is not None and key != (os.environ.get("FINETUNED_API_KEY") or None):
        options += ["--key", "KEY"]
    return _command(words, options)


def in_home(words: str, home: Path) -> str:
    """A command on that home folder."""
    usual = Path(os.environ.get("FINETUNED_HOME") or default_home()).absolute()
    return _command(words, [] if home.absolute() == usual else ["--home", str(home.absolute())])


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


def _command(words: str, options: list[str]) -> str:
    return " ".join(["finetuned", words, *map(shlex.quote, options)])
