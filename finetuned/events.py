"""What a job's event stream consists of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobEvent:
    type: str
    """One of "status", "queue" and "retry", or the type of an event of the trainer, such as "metric"."""
    time: float
    """Seconds since the epoch."""
    data: dict[str, Any]
    """Fields of this type of event."""
    id: str = ""
    """To continue after this event: `job.watch(after=event.id)`."""
