"""Where the program itself failed. Two attempts that fail alike would do so for ever."""

import traceback
from pathlib import Path

from pydantic import BaseModel


class Fault(BaseModel):
    exception: str
    """Its class."""
    location: str
    """File, line and function that raised it."""
    step: int | None
    """The last that the attempt had taken; None before its first."""


def fault_of(error: Exception, step: int | None = None) -> Fault:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    location = f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} {last.name}" if last else ""
    return Fault(exception=f"{type(error).__module__}.{type(error).__qualname__}", location=location, step=step)
