"""The statuses of a job, and the transitions between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for devices
    RUNNING = "running"  # a worker holds its lease
    PAUSED = "paused"  # paused by its owner; continues from its last training checkpoint
    SUCCEEDED = "succeeded"  # the adapter exists
    FAILED = "failed"  # has a FailureCode
    CANCELLED = "cancelled"  # cancelled by its owner; all its processes have ended


class RequestedAction(StrEnum):
    """An action for the job's worker. It stands beside the status, because only the worker can carry it out."""

    CANCEL = "cancel"
    FORCE_CANCEL = "force_cancel"  # without time to save
    PAUSE = "pause"
    PREEMPT = "preempt"  # save and go back to the queue, for a job of a higher priority


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.QUEUED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    # Only by a retry.
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
"""A job stays in these unless its owner acts."""


def allowed_from(target: JobStatus) -> frozenset[JobStatus]:
    """The statuses from which a job may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)
