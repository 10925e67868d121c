"""The tables."""

from store.models.base import Base
from store.models.jobs import Artifact, Event, Job, Metric
from store.models.workers import Device, Lease, Worker

__all__ = ["Artifact", "Base", "Device", "Event", "Job", "Lease", "Metric", "Worker"]
