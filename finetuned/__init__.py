"""The Python client and the command of a fine-tuning service for your own GPUs.

from finetuned import Client

with Client() as client:
    job = client.jobs.create({"model": "smollm2-135m-instruct", "dataset": "examples/data/quickstart.jsonl"})
    for event in job.watch():
        print(event.type, event.data)
    job.download("adapter")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetuned._async.client import AsyncClient as AsyncClient
    from finetuned._async.datasets import AsyncDataset as AsyncDataset
    from finetuned._async.jobs import AsyncJob as AsyncJob
    from finetuned._sync.client import Client as Client
    from finetuned._sync.datasets import Dataset as Dataset
    from finetuned._sync.jobs import Job as Job
    from finetuned.errors import Conflict as Conflict
    from finetuned.errors import Damaged as Damaged
    from finetuned.errors import FinetunedError as FinetunedError
    from finetuned.errors import InvalidRequest as InvalidRequest
    from finetuned.errors import NotAllowed as NotAllowed
    from finetuned.errors import NotFound as NotFound
    from finetuned.errors import Refused as Refused
    from finetuned.errors import ServiceError as ServiceError
    from finetuned.errors import ServiceFailed as ServiceFailed
    from finetuned.errors import TooMany as TooMany
    from finetuned.errors import UnexpectedAnswer as UnexpectedAnswer
    from finetuned.errors import Unreachable as Unreachable
    from finetuned.errors import WaitTimeout as WaitTimeout
    from finetuned.events import JobEvent as JobEvent
    from finetuned.objects.jobs import Metrics as Metrics
    from finetuned.objects.plans import Plan as Plan
    from finetuned.status import Status as Status

    __version__: str

_ERRORS = (
    "Conflict Damaged FinetunedError InvalidRequest NotAllowed NotFound Refused ServiceError ServiceFailed TooMany "
    "UnexpectedAnswer Unreachable WaitTimeout"
)
# Loaded at first use: `finetuned --help` needs no HTTP.
_HOMES = {
    "AsyncClient": "_async.client",
    "AsyncDataset": "_async.datasets",
    "AsyncJob": "_async.jobs",
    "Client": "_sync.client",
    "Dataset": "_sync.datasets",
    "Job": "_sync.jobs",
    "JobEvent": "events",
    "Metrics": "objects.jobs",
    "Plan": "objects.plans",
    "Status": "status",
    **dict.fromkeys(_ERRORS.split(), "errors"),
}
__all__ = [
    "AsyncClient",
    "AsyncDataset",
    "AsyncJob",
    "Client",
    "Conflict",
    "Damaged",
    "Dataset",
    "FinetunedError",
    "InvalidRequest",
    "Job",
    "JobEvent",
    "Metrics",
    "NotAllowed",
    "NotFound",
    "Plan",
    "Refused",
    "ServiceError",
    "ServiceFailed",
    "Status",
    "TooMany",
    "UnexpectedAnswer",
    "Unreachable",
    "WaitTimeout",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("finetuned")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
