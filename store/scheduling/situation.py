"""What the planner is given, and what it decides. Times are in epoch seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SHARERS = 2
"""Most jobs at once on a device, where all of them allow sharing. The plan keeps two times for each device."""


class DeviceRef(NamedTuple):
    worker: str
    number: int


@dataclass(frozen=True)
class Host:
    """A machine whose worker is alive and not draining."""

    name: str
    devices: int
    """Number of devices, numbered from 0."""
    unit: str
    """Word for one device: "GPU", "CPU slot" or "queue place"."""
    busy: frozenset[int] = frozenset()
    """Numbers of the devices that processes of other programs use; they are not given out."""
    reserve_bytes: int | None = None
    """The free space that its disk lacks, so that no job starts there; None where its disk has enough."""


@dataclass(frozen=True)
class Waiting:
    """A queued job."""

    id: str
    owner: str
    priority: int
    since: float
    nodes: int
    needs: Mapping[str, int]
    """Number of devices it needs on each host. A machine without GPUs may need fewer."""
    usable: Mapping[str, frozenset[int]]
    """Numbers of the devices on each host that can train it. Hosts without any are absent."""
    share: bool = False
    seconds: float | None = None
    """Expected duration; None if unknown."""
    not_before: float | None = None


@dataclass(frozen=True)
class Occupant:
    """A job on devices: running, about to start, or ended with processes that are still there."""

    id: str
    owner: str
    priority: int
    devices: tuple[DeviceRef, ...]
    share: bool = False
    preemptible: bool = False
    """Whether it runs and may be preempted."""
    leaving: bool = False
    """Whether it is stopping, so that its devices will be free soon."""
    started: float = 0.0
    ends: float | None = None
    """Expected end; None if unknown."""


@dataclass(frozen=True)
class Wait:
    """Why a job waits."""

    position: int
    """1 is the next one. A job that waits after a failure has a position but holds nobody up."""
    reason: str
    """Sentence for people that says what it waits for."""
    estimated_start: float | None
    """Expected start; None if unknown."""
    code: str = field(default="", compare=False)
    """One of store.scheduling.reasons.CODES."""
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the sentence names, for programs and other languages: numbers, texts, or lists of either or of objects."""


@dataclass(frozen=True)
class SchedulePlan:
    starts: dict[str, tuple[DeviceRef, ...]]
    """Devices to lease now for each job: those of the head's machine first, and each machine's together."""
    preempt: tuple[str, ...]
    """Ids of running jobs that are to save and go back to the queue."""
    waits: dict[str, Wait]
    """All other waiting jobs."""
    claimed: frozenset[DeviceRef] = frozenset()
    """Devices that some of these get as soon as others have left them, with those that are free already."""
