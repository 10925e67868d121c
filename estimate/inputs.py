"""What the estimates of a run are made from: its model, a kind of device, and the largest micro-batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.model.loaded_names import Shapes
from estimate.adapter import TrainedParameters
from estimate.architecture import Architecture


@dataclass(frozen=True)
class SizedModel:
    """A base model of a known architecture, and the parameters trained on it."""

    shapes: Shapes
    config: dict[str, Any]
    architecture: Architecture
    trained: TrainedParameters
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each weight that is loaded as the files store it, in 4 or 8 bits."""


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device that a rank may run on."""

    on_gpu: bool
    precision: str
    """One of bf16, fp16, fp32 and fp8."""
    memory_bytes: int | None
    """Memory of the GPU, or this rank's share of a CPU machine's memory; None if unknown."""


@dataclass(frozen=True)
class PackedRow:
    """The largest micro-batch that a device gets."""

    tokens: int
    documents: int
    supervised: int
