"""Metrics for Prometheus: requests as they are answered, and the service's state when it is scraped."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from store import gauges
from store.session import Sessions

log = logging.getLogger(__name__)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    def __init__(self, sessions: Sessions, home: Path, streams: Callable[[], int]) -> None:
        """`streams` counts the clients of event streams."""
        # Of its own: the library's is one for the whole process.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "finetuned_http_requests", "Requests that were answered.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "finetuned_http_request_seconds", "From a request to the first line of its answer.", ["method", "route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Service(sessions, home, streams))

    def count(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is the template, with no id in it; None where there is none."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route or "none", str(status)).inc()
        self._seconds.labels(method, route or "none").observe(seconds)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Service(Collector):
    def __init__(self, sessions: Sessions, home: Path, streams: Callable[[], int]) -> None:
        self._sessions = sessions
        self._home = home
        self._streams = streams

    def describe(self) -> Iterator[Metric]:
        """Empty: otherwise registering it would read the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield from self._disks()
        yield _gauge("event_streams", "Clients that stream the events of a job.", self._streams())
        began = time.perf_counter()
        try:
            with self._sessions.begin() as session:
                now = gauges.read(session)
        except SQLAlchemyError as error:
            log.warning("no numbers of the database, it is away: %s", error)
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield _gauge("scrape_seconds", "That it took to read these numbers.", time.perf_counter() - began)
        yield _by("jobs", "Jobs by status.", "status", now.jobs)
        yield _gauge("queue_age_seconds", "Since the job that has waited longest was posted.", now.queue_seconds)
        yield _by("devices", "Devices by state.", "state", now.devices)
        yield _by("workers", "Workers by state.", "state", now.workers)
        yield _by("webhook_deliveries", "Messages to webhooks of 30 days, by status.", "status", now.deliveries)
        yield _gauge("low_disk_workers", "Workers on which no attempt starts until more disk is free.", now.low_disks)
        yield _gauge("dataset_bytes", "Of uploaded datasets, each content once.", now.dataset_bytes)
        yield _gauge("artifact_bytes", "Of what jobs have left to download.", now.artifact_bytes)

    def _disks(self) -> Iterator[Metric]:
        """Of the home folder, and of those in it that may be links to other disks."""
        folders = {path.name: path for path in (self._home / "runs", self._home / "blobs") if path.exists()}
        usages = {name: shutil.disk_usage(path) for name, path in ({"home": self._home} | folders).items()}
        free = {name: usage.free for name, usage in usages.items()}
        yield _by(
            "disk_free_bytes", "Free on the disk of a folder: the home, and runs and blobs in it.", "folder", free
        )
        total = {name: usage.total for name, usage in usages.items()}
        yield _by("disk_bytes", "Size of that disk.", "folder", total)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"finetuned_{name}", what, value=value)


def _by(name: str, what: str, label: str, counts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"finetuned_{name}", what, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
