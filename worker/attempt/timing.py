"""How long an attempt waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    tick: float = 0.2
    """Between two reads of the trainer's events."""
    heartbeat: float = 1.0
    """Between two renewals of the lease when there is nothing to record."""
    alone: float = 15.0
    """How long one machine of several may train on after another has left the attempt. It usually fails by itself
    sooner."""
    exit_after_done: float = 10.0
    """From a trainer's last event, when everything is saved, to its exit: torchrun may wait for other machines."""
    publishing: float = 5.0
    """How long a job that has not succeeded stays running until its artifacts are published."""


NORMAL = Timing()
