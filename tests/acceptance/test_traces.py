"""Traces by OTLP over HTTP, from POST /jobs to the trainer's first step."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.waiting import until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_, TRACE, CALLER_SPAN, _ = CALLER.split("-")
STARTS = ["schedule", "claim", "lay_out", "launch", *(f"trainer.{each}" for each in ("imports", "model", "data"))]

STARTED = """
import sys
import {part}.__main__, {work}
from runtime import tracing
tracing.start("finetuned-{part}")
assert not tracing.is_on()
with tracing.span("nothing", tracing.traceparent()):
    pass
sys.exit(", ".join(name for name in sys.modules if name.startswith({packages})) or 0)
"""


class Collector:
    """An OTLP receiver on loopback."""

    def __init__(self, url: str, received: list[bytes]) -> None:
        self.url = url
        self._received = received

    def spans(self) -> dict[str, dict[str, Any]]:
        """By name, those of the caller's trace."""
        found = {}
        for body in list(self._received):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                part = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    if span.trace_id.hex() == TRACE:
                        attributes = {
                            each.key: each.value.string_value or each.value.int_value for each in span.attributes
                        }
                        found[span.name] = {"span": span, "service": part, **attributes}
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}", received)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_trace_reaches_from_post_to_the_first_step(tmp_path: Path, database_url: str, broker_url: str) -> None:
    add_model_and_dataset(tmp_path)
    trainer = {"FINETUNED_TRAINER": f"{sys.executable} -P {service.FAKE_TRAINER}"}
    with collecting() as collector:
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with service.running(tmp_path, database_url, broker_url, **trainer, **tracing) as live:
            recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=2 phases"}
            answer = live.client.post("/jobs", json=recipe, headers={"traceparent": CALLER})
            job_id = answer.raise_for_status().json()["id"]
            live.wait(job_id)
            until(lambda: "trainer.first_step" in collector.spans())
        spans = collector.spans()
    request = spans.pop("POST /jobs")
    assert request["service"] == "finetuned-api"
    assert (request["http.request.method"], request["http.route"]) == ("POST", "/jobs")
    assert request["http.response.status_code"] == 201
    assert request["span"].parent_span_id.hex() == CALLER_SPAN
    assert set(spans) == {"resolve", "insert", *STARTS, "trainer.first_step"}
    for name, each in spans.items():
        assert each["span"].parent_span_id == request["span"].span_id, name
        assert each["span"].start_time_unix_nano <= each["span"].end_time_unix_nano
        if name not in ("resolve", "insert"):
            assert (each["service"], each["finetuned.job_id"]) == ("finetuned-worker", job_id)
            assert each["finetuned.attempt"] == 1


# FastAPI imports OpenTelemetry's API, without the SDK, for telemetry of its own that stays off.
@pytest.mark.parametrize(
    ("part", "work", "packages"),
    [
        ("api", "api.app", ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "runtime.otlp")),
        ("worker", "worker.tasks", ("opentelemetry", "runtime.otlp")),
    ],
)
def test_nothing_is_imported_while_tracing_is_off(part: str, work: str, packages: tuple[str, ...]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    script = STARTED.format(part=part, work=work, packages=packages)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
