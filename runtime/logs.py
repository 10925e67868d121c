"""The log of a process: one line for each event, as JSON or text, printable and without secrets."""

import json
import logging
import re
import sys
import threading
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from contract.formatting import escape_unprintable
from runtime.settings import StoreSettings

_INDENT = "    "
_SECRETS = (
    (re.compile(r"\b(sk-|whsec_|hf_)[\w+/=-]{8,}"), r"\1***"),
    # The password in a URL, up to the last @: a password may contain one.
    (re.compile(r"(\w://[^\s:/@'\"]*:)[^\s'\"/]*@"), r"\1***@"),
    (re.compile(r"(?i)\b(bearer) +[\w.~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"""(?i)(authorization\\?['"]? *[=:,] *b?\\?['"]?)(?:basic +)?[^\s'"\\,;&)]+"""), r"\1***"),
    (re.compile(r"""(?i)((?:password|access_key)\\?['"]? *[=:,] *\\?['"]?)[^\s'"\\,;&)]+"""), r"\1***"),
)


def configure(settings: StoreSettings) -> None:
    """Configures all loggers of the process, those of libraries included. By default it writes text to a terminal, and
    JSON elsewhere, where programs read it."""
    as_text = settings.log_format == "text" or (settings.log_format is None and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(make_formatter(settings, as_text))
    logging.captureWarnings(True)
    # Python would write these to stderr as they are, secrets included.
    sys.excepthook, threading.excepthook = _log_uncaught, _log_uncaught_in_thread
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # They log each request with its whole URL, and the URL of a webhook may be a secret.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def make_formatter(settings: StoreSettings, as_text: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_copies,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    rendering: Processor = _as_text if as_text else structlog.processors.JSONRenderer(default=str)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            rendering,
            SecretFilter(settings),
        ],
    )


def _without_copies(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Drops the fields in which uvicorn and Celery repeat the message."""
    for name in ("color_message", "data"):
        entry.pop(name, None)
    return entry


class SecretFilter:
    """Removes secrets from the finished line, whether a traceback or a library put them there."""

    def __init__(self, settings: StoreSettings) -> None:
        values = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
        passwords = [urlsplit(value).password for value in values if "://" in value]
        keys = [value for value in values if "://" not in value]
        known = {each for each in [*keys, *passwords, *map(unquote, filter(None, passwords))] if each}
        self._known = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)")

    def __call__(self, _: WrappedLogger, __: str, line: Any) -> str:
        return redact(self._known.sub("***", str(line)))


def redact(text: str) -> str:
    """The text without anything that looks like a secret, of this service or of others."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _as_text(_: WrappedLogger, __: str, entry: EventDict) -> str:
    """Time, level and event, then the other fields by name. A traceback follows in indented lines, so that only an
    event's own line begins with a time."""
    trace = entry.pop("exception", None)
    entry.pop("logger", None)
    head = [entry.pop("time"), f"{entry.pop('level'):7}", str(entry.pop("event")).strip()]
    line = escape_unprintable(" ".join([*head, *(f"{name}={_value(value)}" for name, value in entry.items())]))
    return "\n".join([line, *(f"{_INDENT}{escape_unprintable(each)}" for each in (trace or "").split("\n") if trace)])


def _value(value: object) -> str:
    """The value as text, quoted where it could be read as more than one field."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[\s=\"]", text) or not text else text


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(thrown: threading.ExceptHookArgs) -> None:
    if thrown.exc_value is not None:
        _log_uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)
