"""What a job keeps of the end of its processes: which there were, and that all are gone."""

from pydantic import BaseModel


class Process(BaseModel):
    pid: int
    name: str
    killed: bool
    """It did not end by itself in time."""


class ExitReport(BaseModel):
    stop_requested: float | None
    """When they were to stop, in seconds since the epoch; None where the launcher ended by itself."""
    ended: float
    """When the last of them was gone."""
    seconds: float
    """From the one, or from the launcher's end, to the other."""
    processes: list[Process]
    """The launcher, and all that were there when they were to stop or had to be killed."""
    memory_before: dict[int, int] = {}
    """Bytes in use on each GPU by its number, just before; none without GPUs, or where the launcher ended by itself."""
    memory_after: dict[int, int] = {}
    """Likewise, when all were gone."""
