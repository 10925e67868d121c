"""The Python client and the command of a fine-tuning service for your own GPUs."""

from importlib.metadata import version

from finetuned.client import Client, Job
from finetuned.errors import Damaged, FinetunedError, Refused, ServiceError, Unreachable
from finetuned.events import JobEvent
from finetuned.status import Status

__version__ = version("finetuned")

__all__ = [
    "Client",
    "Damaged",
    "FinetunedError",
    "Job",
    "JobEvent",
    "Refused",
    "ServiceError",
    "Status",
    "Unreachable",
    "__version__",
]
