"""The states of a job, and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for devices
    RUNNING = "running"  # a worker holds its lease
    PAUSED = "paused"  # set aside at the user's wish, goes on from its last state
    SUCCEEDED = "succeeded"  # the adapter is there
    FAILED = "failed"  # has a FailureReason
    CANCELLED = "cancelled"  # at the user's wish; every process of it is gone


class Wish(StrEnum):
    """What is asked of a running job. A flag beside the status, for its worker alone can act on it."""

    CANCEL = "cancel"
    KILL = "kill"  # cancel, without the time to save
    PAUSE = "pause"
    STEP_ASIDE = "step_aside"  # for a job of a higher priority


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.QUEUED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    # By a retry alone.
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
"""A job stays there of itself."""


def allowed_from(target: JobStatus) -> frozenset[JobStatus]:
    """The states from which a job may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)
