"""What was measured of one arm on one work."""

from dataclasses import dataclass, field
from typing import Any

OURS, FLOOR = "finetuned", "floor, no LoRA"


@dataclass(frozen=True)
class Run:
    """None is what was not measured: without a GPU, or where the arm failed."""

    arm: str
    work: str
    round: int
    supervised_rate: float | None = None
    """Supervised tokens a second, over the steps after the warm-up."""
    real_rate: float | None = None
    """Tokens a second over the same steps, padding never counted."""
    processor_rate: float | None = None
    """The same tokens a second of processor time, which other work on the machine hardly changes."""
    peak_bytes: int | None = None
    launch: float | None = None
    """Seconds from the start of the process to the end of the first optimizer step."""
    first_step: float | None = None
    """Of that, the step itself."""
    step_seconds: list[float] = field(default_factory=list)
    """Of every step after the first, the warm-up's others included."""
    used: dict[str, Any] = field(default_factory=dict)
    """The formats, threads and versions that it says it had."""
    adapter: str | None = None
    """Its folder."""
    eval_loss: float | None = None
    cuda_allocated: int | None = None
    cuda_reserved: int | None = None
    planned_bytes: int | None = None
    """What the plan says for an arm of ours: allocated on a GPU, resident on a CPU."""
    operations_per_second: float | None = None
    """On each device; see flops.py."""
