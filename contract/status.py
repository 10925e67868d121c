"""The states of a job, and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker holds its lease
    PAUSED = "paused"  # set aside at the user's wish, resumes from its last checkpoint
    SUCCEEDED = "succeeded"  # the adapter is there
    FAILED = "failed"  # has a FailureReason
    CANCELLED = "cancelled"  # at the user's wish; every process of it is gone


class Wish(StrEnum):
    """What a user asked of a job. A flag beside the status, for the worker alone can act on a running job."""

    CANCEL = "cancel"


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.QUEUED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}

TERMINAL: frozenset[JobStatus] = frozenset(status for status, targets in TRANSITIONS.items() if not targets)


def allowed_from(target: JobStatus) -> frozenset[JobStatus]:
    """The states from which a job may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)
