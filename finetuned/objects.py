"""What the service answers, as frozen dataclasses.

Plain dataclasses, because pydantic would be the package's heaviest dependency. A field that a newer service adds is
passed over, and is still in `raw`; one that an older service lacks is None or empty.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetuned.json_object import Object
from finetuned.status import TERMINAL, Status


@dataclass(frozen=True)
class Progress(Object):
    step: int
    total_steps: int | None = None
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    best_step: int | None = None
    stopped_early: bool = False
    tokens_per_second: float | None = None
    progress: float = 0.0
    """From 0 to 1."""
    eta_seconds: float | None = None


@dataclass(frozen=True)
class Queue(Object):
    position: int
    """1 is the next job to start."""
    reason: str = ""
    code: str = ""
    """The reason for programs, such as "busy_devices"."""
    values: dict[str, Any] = field(default_factory=dict)
    """What the reason names, such as machines and seconds."""
    estimated_start_at: datetime | None = None


@dataclass(frozen=True)
class Failure(Object):
    code: str = "unknown"
    message: str = ""
    param: str | None = None
    retryable: bool = False
    log_tail: str | None = None


@dataclass(frozen=True)
class DeviceOfJob(Object):
    worker: str
    number: int


@dataclass(frozen=True)
class Tracker(Object):
    """A tracker that gets the run of a job, and how far it is."""

    type: str
    status: str = ""
    url: str | None = None
    run: str | None = None
    step: int = 0
    behind: int = 0
    error: str | None = None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True)
class JobFields(Object):
    id: str
    status: str
    """Compare it with Status; a newer service may have others."""
    name: str | None = None
    owner: str | None = None
    requested_action: str | None = None
    priority: int = 0
    queue: Queue | None = None
    devices: tuple[DeviceOfJob, ...] = ()
    attempt: int = 0
    retries: int = 0
    worker: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    tracking: tuple[Tracker, ...] = ()
    failure: Failure | None = None
    exit_report: dict[str, Any] | None = None
    sweep_id: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def succeeded(self) -> bool:
        return self.status == Status.SUCCEEDED


@dataclass(frozen=True)
class Sample(Object):
    step: int
    index: int
    prompt: str
    expected: str | None = None
    generated: str | None = None


@dataclass(frozen=True)
class Artifact(Object):
    name: str
    kind: str = ""
    step: int | None = None
    bytes: int = 0
    sha256: str | None = None
    eval_loss: float | None = None
    best: bool = False
    created_at: datetime | None = None


@dataclass(frozen=True)
class Export(Object):
    id: str
    status: str
    job_id: str | None = None
    format: str = ""
    source: str = ""
    artifact: str | None = None
    failure: Failure | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Problem(Object):
    message: str
    row: int | None = None


@dataclass(frozen=True)
class DatasetReport(Object):
    rows: int
    examples: int
    format: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0
    errors: tuple[Problem, ...] = ()
    error_count: int = 0
    unused_fields: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetFields(Object):
    id: str
    status: str
    """"uploaded" while the rows are checked, then "processed" or "error"."""
    owner: str | None = None
    filename: str = ""
    bytes: int = 0
    sha256: str | None = None
    status_details: str | None = None
    format: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    rows: int | None = None
    created_at: datetime | None = None
    report: DatasetReport | None = None


@dataclass(frozen=True)
class LengthBucket(Object):
    from_tokens: int
    to_tokens: int
    examples: int


@dataclass(frozen=True)
class TokenReport(Object):
    examples: int
    tokens: int
    complete: bool = False
    supervised_fraction: float | None = None
    percentiles: dict[str, int] = field(default_factory=dict)
    histogram: tuple[LengthBucket, ...] = ()
    max_length: int = 0
    truncated: int = 0
    dropped: int = 0
    refused: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Token(Object):
    id: int
    text: str
    supervised: bool = False


@dataclass(frozen=True)
class RenderedText(Object):
    text: str
    length: int = 0
    supervised: int = 0
    kept: int = 0
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class PreviewExample(Object):
    row: int
    texts: tuple[RenderedText, ...] = ()
    truncated: bool = False
    dropped: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class Memory(Object):
    """Bytes on each device."""

    total: int
    weights: int = 0
    adapter: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    communication_buffers: int = 0
    overhead: int = 0


@dataclass(frozen=True)
class DevicePlan(Object):
    device: str
    memory: Memory
    devices: int = 1
    precision: str = ""
    available: int | None = None
    fits: bool | None = None
    """None if the service cannot know."""
    suggestions: tuple[dict[str, Any], ...] = ()
    tokens_per_second: float | None = None
    cold_start_seconds: float | None = None
    eta_seconds: float | None = None
    measured_jobs: int = 0


@dataclass(frozen=True)
class Work(Object):
    train_examples: int
    effective_batch_size: int
    steps: int
    tokens: int | None = None


@dataclass(frozen=True)
class Plan(Object):
    work: Work
    parameters: dict[str, Any] | None = None
    devices: tuple[DevicePlan, ...] = ()
    disk: dict[str, int] | None = None
    packed: bool | None = None
    packing: str | None = None
    expected_seconds: float | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


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


class Metrics(dict[str, list[Any]]):
    """The training metrics by column, such as "step" and "loss". A dictionary, so that pandas.DataFrame takes it."""

    def __init__(self, columns: dict[str, list[Any]], evaluations: dict[str, list[Any]], thinned: bool = False) -> None:
        super().__init__(columns)
        self.evaluations = evaluations
        """The evaluations by column: "step" and "eval_loss"."""
        self.thinned = thinned
        """Whether steps were left out, because fewer points were requested."""


@dataclass(frozen=True)
class SweepJob(Object):
    """A job of a sweep, and how far it is."""

    id: str
    values: dict[str, Any]
    """What it tries, by the dotted names of the recipe's fields."""
    status: str
    loss: float | None = None
    eval_loss: float | None = None
    step: int | None = None
    total_steps: int | None = None


@dataclass(frozen=True)
class Sweep(Object):
    id: str
    name: str | None = None
    owner: str | None = None
    created_at: datetime | None = None
    fields: tuple[str, ...] = ()
    jobs: tuple[SweepJob, ...] = ()
    best: str | None = None
    """Id of the job with the least evaluation loss, or without one the least loss."""
