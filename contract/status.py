"""The states of a job, and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for devices
    RUNNING = "running"  # a worker holds its lease
    PAUSED = "paused"  # set aside by its owner, goes on from its last training checkpoint
    SUCCEEDED = "succeeded"  # the adapter is there
    FAILED = "failed"  # has a FailureCode
    CANCELLED = "cancelled"  # by its owner; every process of it is gone


class RequestedAction(StrEnum):
    """What a running job shall do. It stands beside the status, because only the job's worker can do it."""

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
    # By a retry alone.
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
"""A job stays there of itself."""


def allowed_from(target: JobStatus) -> frozenset[JobStatus]:
    """The states from which a job may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)
