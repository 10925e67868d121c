"""Sends spans by OpenTelemetry's protocol over HTTP. Imported only while tracing is on."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attribute = str | int | float | bool
Describe = Callable[[str, Mapping[str, Attribute], bool], None]
"""Sets the name of a span, its attributes, and whether it failed."""

_LONGEST_STOP = 2.0
"""Seconds for which a process that ends sends its last spans."""
_HEADER = "traceparent"
_propagator = TraceContextTextMapPropagator()


class Otlp:
    def __init__(self, service: str) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("finetuned")

    def stop(self) -> None:
        # A daemon, so that a collector that does not answer holds up no process that ends.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_LONGEST_STOP)

    @contextmanager
    def request(self, traceparent: str | None) -> Iterator[Describe]:
        with self._tracer.start_as_current_span(
            "request", _context(traceparent), SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:

            def describe(name: str, attributes: Mapping[str, Attribute], failed: bool) -> None:
                span.update_name(name)
                span.set_attributes(attributes)
                if failed:
                    span.set_status(StatusCode.ERROR)

            yield describe

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get(_HEADER)

    @contextmanager
    def span(self, name: str, parent: str, attributes: Mapping[str, Attribute]) -> Iterator[None]:
        began, found = time.time(), dict(attributes)
        try:
            yield
        except BaseException as error:
            found["error.type"] = type(error).__name__
            raise
        finally:
            self.record(name, (began, time.time()), parent, found)

    def record(self, name: str, times: tuple[float, float], parent: str, attributes: Mapping[str, Attribute]) -> None:
        began, ended = (int(each * 1e9) for each in times)
        span = self._tracer.start_span(name, _context(parent), attributes=attributes, start_time=began)
        if "error.type" in attributes:
            span.set_status(StatusCode.ERROR)
        span.end(ended)


def _context(traceparent: str | None) -> Context:
    """A malformed one begins a trace of its own."""
    return _propagator.extract({_HEADER: traceparent} if traceparent else {}, Context())
