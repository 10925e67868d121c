"""What a job keeps about the end of its processes: which there were, and that all have ended."""

from pydantic import BaseModel


class Process(BaseModel):
    pid: int
    name: str
    killed: bool
    """True if it did not end by itself in time."""


class ExitReport(BaseModel):
    stop_requested: float | None
    """When the processes were to stop, in seconds since the epoch; None if the launcher ended by itself."""
    ended: float
    """When the last of them had ended."""
    seconds: float
    """Seconds from the stop request, or from the launcher's end, to the end of the last process."""
    processes: list[Process]
    """The launcher, and all processes that existed at the stop request or had to be killed."""
    memory_before: dict[int, int] = {}
    """Bytes in use on each GPU, by its number, just before the stop; empty without GPUs, or if the launcher ended by
    itself."""
    memory_after: dict[int, int] = {}
    """The same, after all processes had ended."""
