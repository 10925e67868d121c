"""Spans of requests and attempts. Off unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector; off, it imports nothing."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.otlp import Attribute, Describe, Otlp

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Not a setting of our own: the SDK reads it with its siblings for headers, certificates and sampling."""

_otlp: "Otlp | None" = None


def start(service: str) -> None:
    """Starts the export of this process. Call it again after a fork. Exits with 1 if the packages are missing."""
    global _otlp
    if not os.environ.get(ENDPOINT):
        return
    try:
        from runtime.otlp import Otlp
    except ModuleNotFoundError as error:
        sys.exit(f"{ENDPOINT}: it is set, but {error.name} is not installed; run `pip install --group tracing`")
    _otlp = Otlp(service)


def stop() -> None:
    """Sends what is left, for two seconds at most."""
    if _otlp is not None:
        _otlp.stop()


def is_on() -> bool:
    return _otlp is not None


def request(traceparent: str | None) -> "AbstractContextManager[Describe]":
    """The span of a request, which continues the caller's trace. Only while tracing is on."""
    assert _otlp is not None
    return _otlp.request(traceparent)


def traceparent() -> str | None:
    """W3C's name of the request's span, under which other processes add theirs; None without one."""
    return None if _otlp is None else _otlp.traceparent()


@contextmanager
def span(name: str, parent: str | None, attributes: "Mapping[str, Attribute]" = MappingProxyType({})) -> Iterator[None]:
    """Times a part of the work. `parent` is a traceparent; without one nothing is recorded."""
    if _otlp is None or parent is None:
        yield
        return
    with _otlp.span(name, parent, attributes):
        yield


def record(name: str, times: tuple[float, float], parent: str | None, attributes: "Mapping[str, Attribute]") -> None:
    """Records what is over already; `times` are its start and end, in seconds since the epoch."""
    if _otlp is not None and parent is not None:
        _otlp.record(name, times, parent, attributes)
