"""The lines of events.jsonl: one JSON object each, told apart by `type`. The trainer appends, the worker reads."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter


class _Event(BaseModel):
    time: float
    """Seconds since the epoch."""


class Phase(_Event):
    """A part of the start-up is over: imports, model, data, first_step."""

    type: Literal["phase"] = "phase"
    name: str
    seconds: float


class Started(_Event):
    """Everything is loaded; the first step is next."""

    type: Literal["started"] = "started"
    resumed_step: int = 0
    """The last step of the checkpoint that it goes on from."""
    total_steps: int
    train_examples: int
    eval_examples: int
    supervised_tokens: int
    """In one epoch."""
    truncated_examples: int
    dropped_examples: int
    """Left without a supervised token by max_length, or empty of one."""
    trainable_parameters: int
    total_parameters: int
    world_size: int
    engine: str = "ddp"
    """What divides the work among the ranks: "ddp", "deepspeed zero-2", "fsdp"."""
    micro_batch_size: int = 1
    """Examples in one forward and backward pass on one device; a recipe's "auto" is resolved here."""
    effective_batch_size: int = 1
    """Examples of one optimizer step, on all devices."""
    device: str
    precision: str
    """What the run really uses; a recipe's "auto" is resolved here."""
    versions: dict[str, str]


class Metric(_Event):
    """One optimizer step."""

    type: Literal["metric"] = "metric"
    step: int
    epoch: float
    loss: float
    """Mean over the supervised tokens of the step, in nats."""
    learning_rate: float
    grad_norm: float | None
    """Before clipping; null where the gradients overflowed."""
    loss_scale: float | None = None
    """What the loss was multiplied with, in fp16."""
    overflow: bool = False
    """The gradients were too large for fp16: the weights are left as they were, and the loss scale is lowered."""
    skipped_steps: int = 0
    """So far, for an overflow."""
    tokens: int
    """Of this step, on all ranks."""
    supervised_tokens: int
    tokens_per_second: float
    memory_bytes: int
    """Peak so far: allocated on the device, or resident on a CPU."""
    progress: float
    """0 to 1."""
    eta_seconds: float


class Evaluation(_Event):
    type: Literal["evaluation"] = "evaluation"
    step: int
    """0 is the base model, before the first step."""
    eval_loss: float
    """Mean over the supervised tokens of the evaluation split, in nats."""
    supervised_tokens: int
    best: bool = False
    """Lower than at every evaluation before, the base model's included."""


class Sample(_Event):
    """What the model answers to a held-out prompt, at an evaluation."""

    type: Literal["sample"] = "sample"
    step: int
    index: int
    """Of the prompt, from 0: the same ones at every evaluation."""
    prompt: str
    expected: str
    generated: str


class Checkpoint(_Event):
    """An adapter has been saved, complete and on disk."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    """Relative to the run folder."""
    bytes: int
    final: bool = False
    eval_loss: float | None = None
    """Of the evaluation at this step, where there was one."""


class Log(_Event):
    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"]
    message: str


class Done(_Event):
    """The last line of a run that ended as it should; without it the run did not."""

    type: Literal["done"] = "done"
    step: int
    completed: bool
    """False when the trainer was told to stop before the last step."""
    stopped_early: bool = False
    """Completed before the last step: the evaluations no longer fell."""
    best_step: int | None = None
    """The step of the lowest eval_loss; 0 is the base model."""
    train_loss: float | None
    """Mean over the supervised tokens of the whole run."""
    eval_loss: float | None


Event = Phase | Started | Metric | Evaluation | Sample | Checkpoint | Log | Done

_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse_event(line: bytes | str) -> Event:
    """One line of events.jsonl. Raises pydantic.ValidationError."""
    return _adapter.validate_json(line)


def event_data(event: Event) -> dict[str, Any]:
    """What an event says beyond its type and time."""
    return event.model_dump(mode="json", exclude={"type", "time"})
