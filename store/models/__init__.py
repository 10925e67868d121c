"""The tables of the database."""

from store.models.base import Base
from store.models.datasets import Blob, Dataset
from store.models.deletions import Deletion
from store.models.evaluations import EvaluatedRow, JobEvaluation
from store.models.exports import Export
from store.models.inference import InferenceServer
from store.models.jobs import Artifact, DeletedJob, Event, Job, StepMetric
from store.models.owners import AuditEntry, Key, Quota, Request, SignIn
from store.models.pushes import Push
from store.models.ratings import AnswerRating
from store.models.secrets import Secret
from store.models.sweeps import Sweep
from store.models.trackings import TrackedRun
from store.models.webhooks import Delivery, Webhook
from store.models.workers import Device, Lease, MemoryReading, Worker

__all__ = [
    "AnswerRating",
    "Artifact",
    "AuditEntry",
    "Base",
    "Blob",
    "Dataset",
    "DeletedJob",
    "Deletion",
    "Delivery",
    "Device",
    "EvaluatedRow",
    "Event",
    "Export",
    "InferenceServer",
    "Job",
    "JobEvaluation",
    "Key",
    "Lease",
    "MemoryReading",
    "Push",
    "Quota",
    "Request",
    "Secret",
    "SignIn",
    "StepMetric",
    "Sweep",
    "TrackedRun",
    "Webhook",
    "Worker",
]
