"""The interface between the training loop and the engines. Every engine gives the same losses."""

from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.data.packing import PackedBatch
from trainer.model.trained_model import TrainedModel


@dataclass(frozen=True)
class Update:
    """The result of one optimizer step."""

    grad_norm: float | None
    """L2 norm of the mean loss's gradient before clipping; None if the gradients overflowed."""
    loss_scale: float | None = None
    """Factor of the loss, in fp16."""

    @property
    def overflow(self) -> bool:
        """True if the gradients were too large for fp16: no weight has changed, and the loss scale is lower from now
        on."""
        return self.grad_norm is None


class Engine(Protocol):
    """All ranks call every method together, since each may communicate."""

    name: str
    """Name for people: "ddp", "deepspeed zero-2", "fsdp"."""
    module: TrainedModel
    """The unwrapped module. Its weights may be sharded, or elsewhere; `adapter` returns them whole."""
    shards_parameters: bool
    """True if ranks wait for each other in every pass through the model, even without gradients."""
    shards_gradients: bool
    """True if ranks wait for each other in every micro-batch, and not only in a step's last one."""

    def accumulate(self, batch: PackedBatch, scale: float, sync_gradients: bool) -> torch.Tensor:
        """Adds the gradients of `scale` times the first of the batch's sums to those of the step. Returns the sums, on
        the device: reading them waits for a GPU.

        `sync_gradients` is set at the step's last micro-batch, which makes the gradients the mean over the ranks.
        """

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        """Clips the gradients, takes the optimizer step and clears the gradients."""

    def sums(self, batch: PackedBatch, log_probabilities: bool = False) -> torch.Tensor:
        """The batch's sums without gradients, or the `log_probabilities` of its answers, on the device."""

    def adapter(self) -> dict[str, torch.Tensor]:
        """The trained tensors, whole and in fp32, by the PEFT model's own names; complete on rank 0."""

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Whole tensors named PARAMETER/exp_avg, PARAMETER/exp_avg_sq and PARAMETER/step; complete on rank 0. They fit
        any engine and any number of ranks."""

    def load(self, adapter: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        """Restores the results of `adapter` and `optimizer_state`, before the first step. The module already has the
        adapter; only an engine that keeps a more exact copy takes it from here."""

    def scaler_state(self) -> dict[str, float]:
        """In fp16 the loss `scale`, and `clean_steps` since it last changed; otherwise empty. It fits any engine."""

    def load_scaler_state(self, state: dict[str, float]) -> None: ...
