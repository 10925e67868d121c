"""What the service answers about machines, keys, limits, webhooks and disks."""

from dataclasses import dataclass, field
from datetime import datetime

from finetuned.json_object import Object


@dataclass(frozen=True)
class Device(Object):
    number: int
    name: str = ""
    status: str = ""
    memory_bytes: int | None = None
    jobs: tuple[str, ...] = ()
    jobs_of_other_owners: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Disk(Object):
    free_bytes: int
    total_bytes: int
    reserve_bytes: int = 0
    low: bool = False


@dataclass(frozen=True)
class Worker(Object):
    name: str
    status: str = ""
    address: str = ""
    seen_at: datetime | None = None
    disk: Disk | None = None
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Key(Object):
    id: str
    owner: str = ""
    name: str | None = None
    admin: bool = False
    hint: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    secret: str | None = field(default=None, repr=False)
    """Only in the answer that creates the key."""


@dataclass(frozen=True)
class Limits(Object):
    """None is no limit."""

    running_jobs: int | None = None
    queued_jobs: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Usage(Object):
    running_jobs: int = 0
    queued_jobs: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Quota(Object):
    owner: str
    limits: Limits = field(default_factory=Limits)
    """Those that apply to the owner."""
    own_limits: Limits = field(default_factory=Limits)
    """Those that were set for this owner alone."""
    used: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Webhook(Object):
    id: str
    url: str = ""
    owner: str = ""
    events: tuple[str, ...] = ()
    enabled: bool = True
    created_at: datetime | None = None
    secret: str | None = field(default=None, repr=False)
    """Only in the answer that creates the webhook."""


@dataclass(frozen=True)
class Secret(Object):
    """A stored secret. The service never shows its value."""

    name: str
    owner: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Delivery(Object):
    id: str
    status: str = ""
    webhook_id: str = ""
    type: str = ""
    attempts: int = 0
    response_status: int | None = None
    error: str | None = None
    created_at: datetime | None = None
    delivered_at: datetime | None = None


@dataclass(frozen=True)
class Freed(Object):
    kind: str
    count: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Clean(Object):
    bytes: int
    dry_run: bool = False
    data: tuple[Freed, ...] = ()
