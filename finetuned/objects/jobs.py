"""What the service answers about jobs and sweeps."""

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
    reward_accuracy: float | None = None
    """Of the last evaluation, as is reward_margin; None for a method without rewards."""
    reward_margin: float | None = None
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
    shard_size: str | None = None
    source: str = ""
    artifact: str | None = None
    failure: Failure | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class ModelScores(Object):
    loss: float
    perplexity: float | None = None
    exact_match: float = 0.0
    token_f1: float = 0.0
    rouge_l: float = 0.0


@dataclass(frozen=True)
class Scores(Object):
    base: ModelScores
    adapter: ModelScores
    examples: int = 0
    supervised_tokens: int = 0


@dataclass(frozen=True)
class EvaluationFields(Object):
    id: str
    job_id: str
    status: str
    checkpoint: int | None = None
    """None is the job's adapter."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Evaluations with the same "sha256" are of the same data."""
    settings: dict[str, Any] = field(default_factory=dict)
    waits: str | None = None
    examples: int = 0
    done: int = 0
    dropped: int | None = None
    scores: Scores | None = None
    artifact: str | None = None
    failure: Failure | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed")


@dataclass(frozen=True)
class EvaluatedAnswer(Object):
    answer: str
    loss: float = 0.0
    exact_match: float = 0.0
    token_f1: float = 0.0
    rouge_l: float = 0.0
    finish: str = ""


@dataclass(frozen=True)
class EvaluatedRow(Object):
    """An example, with the answers of both models beside the reference answer."""

    number: int
    prompt: str
    reference: str
    base: EvaluatedAnswer
    adapter: EvaluatedAnswer


@dataclass(frozen=True)
class Rating(Object):
    """What somebody thinks of an answer: a label, or another answer that is worse."""

    id: str
    messages: list[dict[str, Any]]
    answer: dict[str, Any]
    """The assistant's message."""
    model: str
    label: bool | None = None
    rejected: dict[str, Any] | None = None
    rejected_model: str | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    owner: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True)
class Push(Object):
    id: str
    status: str
    job_id: str | None = None
    artifact: str = ""
    repo: str = ""
    revision: str | None = None
    private: bool = True
    failures: int = 0
    error: str | None = None
    url: str | None = None
    commit_url: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class JobModels:
    """The names of a job's models."""

    base: str
    model: str | None
    """What the job has trained; None before it has succeeded."""
    checkpoints: list[str]
    """Newest first."""

    @property
    def newest(self) -> str | None:
        return self.model or next(iter(self.checkpoints), None)

    def at(self, step: int) -> str | None:
        """The checkpoint of a step."""
        return next((name for name in self.checkpoints if name.endswith(f":ckpt-step-{step}")), None)


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
    reward_accuracy: float | None = None
    """Of the last evaluation, as is reward_margin; None for a method without rewards."""
    reward_margin: float | None = None
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
    """Id of the job with the highest reward accuracy, or without rewards the lowest evaluation loss, or without an
    evaluation the lowest loss."""
