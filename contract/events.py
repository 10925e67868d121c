"""The lines of events.jsonl, one JSON object each, distinguished by `type`. The trainer appends them and the worker
reads them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from contract.model.trained_modules import TrainedModules


class _Event(BaseModel):
    time: float
    """Time in seconds since the epoch."""


class PhaseEvent(_Event):
    """A part of the start-up has finished: imports, model, data, first_step."""

    type: Literal["phase"] = "phase"
    name: str
    seconds: float


class StartedEvent(_Event):
    """Everything is loaded and the first step is next."""

    type: Literal["started"] = "started"
    resumed_step: int = 0
    """Last step of the training checkpoint that the run continues from."""
    total_steps: int
    train_examples: int
    eval_examples: int
    supervised_tokens: int
    """Supervised tokens in one epoch."""
    truncated_examples: int
    dropped_examples: int
    """Number of examples left out, because they have no supervised token within max_length."""
    trainable_parameters: int
    total_parameters: int
    trained: list[TrainedModules] = []
    """What is trained, by the last parts of the modules' names."""
    world_size: int
    engine: str = "ddp"
    """Engine that shares the work among the ranks: "ddp", "deepspeed zero-2", "fsdp"."""
    micro_batch_size: int = 1
    """Examples in one forward and backward pass on one device, with a recipe's "auto" resolved."""
    effective_batch_size: int = 1
    """Examples of one optimizer step, on all devices."""
    packed: bool = True
    """Whether the documents of a micro-batch go through the model together. Otherwise they go one by one."""
    packing: str = ""
    """Why."""
    device: str
    precision: str
    """Precision in use, with a recipe's "auto" resolved."""
    versions: dict[str, str]


class _Scored(_Event):
    token_accuracy: float | None = None
    """Fraction of the supervised tokens that the model ranks first; null for a method that compares or rates
    answers."""
    reward_accuracy: float | None = None
    """Fraction of pairs whose better answer has the higher reward, or of rated answers on the side of their rating;
    null for a method without rewards, as are the others of these."""
    reward_margin: float | None = None
    """Mean reward of the better answers less that of the worse ones."""
    chosen_reward: float | None = None
    """Mean reward of the better answers, or of those rated as good."""
    rejected_reward: float | None = None
    """Mean reward of the worse answers, or of those rated as bad."""
    chosen_tokens: float | None = None
    """Mean supervised tokens of the better answers, or of those rated as good."""
    rejected_tokens: float | None = None
    """Mean supervised tokens of the worse answers, or of those rated as bad."""


SCORES = tuple(name for name in _Scored.model_fields if name not in _Event.model_fields)
"""Names of what a step or an evaluation may say of the model apart from its loss."""


class MetricEvent(_Scored):
    """One optimizer step."""

    type: Literal["metric"] = "metric"
    step: int
    epoch: float
    loss: float
    """Mean over the supervised tokens of the step, in nats, or over its pairs or rated answers."""
    router_loss: float | None = None
    """Auxiliary loss of a mixture's routers, before its coefficient: the mean of the documents', weighted by their
    supervised tokens. Null if the model's configuration has none. `loss` does not contain it."""
    learning_rate: float
    grad_norm: float | None
    """Norm of the gradients before clipping; null if they overflowed."""
    loss_scale: float | None = None
    """Factor of the loss in fp16."""
    overflow: bool = False
    """True if the gradients were too large for fp16. The weights did not change, and the loss scale is lowered."""
    skipped_steps: int = 0
    """Number of steps skipped so far for an overflow."""
    tokens: int
    """Tokens of this step, on all ranks."""
    supervised_tokens: int
    tokens_per_second: float
    memory_bytes: int
    """Peak memory so far: allocated on the device, or resident on a CPU."""
    progress: float
    """Progress from 0 to 1."""
    eta_seconds: float


class EvaluationEvent(_Scored):
    type: Literal["evaluation"] = "evaluation"
    step: int
    """Step of the evaluation; 0 is the base model, before the first step."""
    eval_loss: float
    """Mean over the supervised tokens of the evaluation split, in nats, or over its pairs or rated answers."""
    supervised_tokens: int
    best: bool = False
    """True if it is better than every evaluation before, including the base model's: by its loss, or by reward_accuracy
    and then reward_margin if it has them."""


class SampleEvent(_Event):
    """The model's answer to a held-out prompt, at an evaluation."""

    type: Literal["sample"] = "sample"
    step: int
    index: int
    """Number of the prompt, from 0. Every evaluation uses the same prompts."""
    prompt: str
    expected: str
    generated: str


class CheckpointEvent(_Event):
    """An adapter has been saved, complete and on disk."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    """Path relative to the run folder."""
    bytes: int
    final: bool = False
    eval_loss: float | None = None
    """Loss of the evaluation at this step, if there was one."""
    reward_accuracy: float | None = None
    """Of that evaluation, for a method with rewards."""
    reward_margin: float | None = None


class LogEvent(_Event):
    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"]
    message: str


class DoneEvent(_Event):
    """The last line of a run that ended properly. A run without it did not."""

    type: Literal["done"] = "done"
    step: int
    completed: bool
    """False if the trainer was stopped before the last step."""
    stopped_early: bool = False
    """True if the run completed before the last step, because the evaluation loss no longer fell."""
    best_step: int | None = None
    """Step of the best evaluation; 0 is the base model."""
    train_loss: float | None
    """Mean over all supervised tokens, pairs or rated answers of the whole run."""
    eval_loss: float | None


Event = PhaseEvent | StartedEvent | MetricEvent | EvaluationEvent | SampleEvent | CheckpointEvent | LogEvent | DoneEvent

_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def parse_event(line: bytes | str) -> Event:
    """Parses one line of events.jsonl. Raises pydantic.ValidationError."""
    return _adapter.validate_json(line)


def event_data(event: Event) -> dict[str, Any]:
    """An event's fields apart from its type and time."""
    return event.model_dump(mode="json", exclude={"type", "time"})
