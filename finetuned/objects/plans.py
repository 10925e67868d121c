"""What the service answers about a recipe that it does not run."""

from dataclasses import dataclass, field
from typing import Any

from finetuned.json_object import Object


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
    reference_tokens: int | None = None
    """Of the pass before the first step, which some methods make."""


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
