"""The log of a process: a line for each event, as JSON or text, printable and without secrets."""

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

from contract.quote import printable
from runtime.settings import StoreSettings

_INDENT = "    "
_SECRETS = (
    (re.compile(r"\b(sk-|whsec_|hf_)[\w+/=-]{8,}"), r"\1***"),
    # Of an address: database and broker. Up to the last @, for a password may have one.
    (re.compile(r"(\w://[^\s:/@'\"]*:)[^\s'\"/]*@"), r"\1***@"),
    (re.compile(r"(?i)\b(bearer) +[\w.~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"""(?i)(authorization\\?['"]? *[=:,] *b?\\?['"]?)(?:basic +)?[^\s'"\\,;&)]+"""), r"\1***"),
    (re.compile(r"""(?i)((?:password|access_key)\\?['"]? *[=:,] *\\?['"]?)[^\s'"\\,;&)]+"""), r"\1***"),
)


def configure(settings: StoreSettings) -> None:
    """For all loggers of the process, the libraries' too. Unless it is set, text on a terminal, else JSON: what is
    collected is read by programs."""
    as_text = settings.log_format == "text" or (settings.log_format is None and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(make_formatter(settings, as_text))
    logging.captureWarnings(True)
    # Python would write these past the log, as they are.
    sys.excepthook, threading.excepthook = _log_uncaught, _log_uncaught_in_thread
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    # They tell of each request, with its whole address: that of a webhook may be a secret itself.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def make_formatter(settings: StoreSettings, as_text: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _once,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    rendering: Processor = _as_text if as_text else structlog.processors.JSONRenderer(default=str)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            rendering,
            WithoutSecrets(settings),
        ],
    )


def _once(_: WrappedLogger, __: str, told: EventDict) -> EventDict:
    """Without what uvicorn and Celery say of an event besides, which says it again."""
    for name in ("color_message", "data"):
        told.pop(name, None)
    return told


class WithoutSecrets:
    """Last of all, on the line as it is written: whatever brought a secret in, a traceback or a library's words."""

    def __init__(self, settings: StoreSettings) -> None:
        values = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
        passwords = [urlsplit(value).password for value in values if "://" in value]
        keys = [value for value in values if "://" not in value]
        known = {each for each in [*keys, *passwords, *map(unquote, filter(None, passwords))] if each}
        self._known = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)")

    def __call__(self, _: WrappedLogger, __: str, line: Any) -> str:
        return without_secrets(self._known.sub("***", str(line)))


def without_secrets(text: str) -> str:
    """Without what looks like one, whosever it is."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _as_text(_: WrappedLogger, __: str, told: EventDict) -> str:
    """Time, level, event, and then the rest by name. A traceback follows in indented lines: whatever it quotes, no line
    but an event's own begins with a time."""
    trace = told.pop("exception", None)
    told.pop("logger", None)
    head = [told.pop("time"), f"{told.pop('level'):7}", str(told.pop("event")).strip()]
    line = printable(" ".join([*head, *(f"{name}={_value(value)}" for name, value in told.items())]))
    return "\n".join([line, *(f"{_INDENT}{printable(each)}" for each in (trace or "").split("\n") if trace)])


def _value(value: object) -> str:
    """Quoted where it could be taken for more than one field."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[\s=\"]", text) or not text else text


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(thrown: threading.ExceptHookArgs) -> None:
    if thrown.exc_value is not None:
        _log_uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)
