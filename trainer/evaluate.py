"""The loss on the examples that are held out of training."""

from collections.abc import Sequence

import torch

from trainer.packing import Document, pack
from trainer.stop import Stop


@torch.no_grad()
def evaluation_loss_sum(
    model: torch.nn.Module, micro_batches: list[Sequence[Document]], device: torch.device, stop: Stop
) -> float:
    """Sum of token losses, in nats, over this rank's micro-batches; cut short when asked to stop.

    Dropout is off meanwhile, so no random numbers are used: training goes on as if there had been no evaluation.
    """
    total = 0.0
    was_training = model.training
    model.eval()
    for micro_batch in micro_batches:
        if stop.asked:
            break
        if micro_batch:
            total += model(pack(micro_batch).to(device)).item()
    model.train(was_training)
    return total
