"""How the ranks share a step's work. The loop knows this much of an engine, and every engine gives the same losses."""

from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.model.loss import SupervisedLoss
from trainer.model.packing import Packed


@dataclass(frozen=True)
class Update:
    """What became of one optimizer step."""

    grad_norm: float | None
    """L2, of the mean loss and before clipping; None where the gradients overflowed."""
    loss_scale: float | None = None
    """What the loss was multiplied with, in fp16."""

    @property
    def overflow(self) -> bool:
        """The gradients were too large for fp16: no weight has changed, and the loss scale is lower from now on."""
        return self.grad_norm is None


class Engine(Protocol):
    """Every method is called by all ranks together: each may exchange something with the others."""

    name: str
    """For people: "ddp", "deepspeed zero-2", "fsdp"."""
    module: SupervisedLoss
    """Not wrapped. Its weights may be in parts, and elsewhere: `adapter` has them whole."""
    divides_weights: bool
    """Ranks wait for each other in every pass through the model, also without gradients."""
    divides_gradients: bool
    """Ranks wait for each other in every micro-batch, and not in a step's last one alone."""

    def accumulate(self, batch: Packed, scale: float, exchange: bool) -> torch.Tensor:
        """Adds the gradients of `scale` times the batch's sum of token losses to those of the step. Returns the sum, a
        scalar on the device: to read it is to wait for a GPU.

        `exchange` at the step's last micro-batch: the gradients are then the mean over the ranks.
        """

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        """Clips the gradients, takes the optimizer step, and forgets the gradients."""

    def loss_sum(self, batch: Packed) -> float:
        """The batch's sum of token losses alone, for evaluation."""

    def adapter(self) -> dict[str, torch.Tensor]:
        """What is trained, whole and in fp32, by the PEFT model's own names; complete on rank 0."""

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Whole tensors named PARAMETER/exp_avg, PARAMETER/exp_avg_sq, PARAMETER/step; complete on rank 0. It fits any
        engine and number of ranks."""

    def load(self, adapter: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        """Takes what `adapter` and `optimizer_state` gave, before the first step. The module already had the adapter
        when the engine took it; only an engine that has finer numbers beside it takes these."""

    def scaler_state(self) -> dict[str, float]:
        """In fp16 the loss `scale`, and `clean_steps` since it last changed; else empty. It fits any engine."""

    def load_scaler_state(self, state: dict[str, float]) -> None: ...
