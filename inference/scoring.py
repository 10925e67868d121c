"""The loss of given tokens, as training has it."""

import math
import queue
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from contract.inference import Refusal
from dataset.document import Document
from inference.adapters import Adapters
from trainer.data.packing import pack
from trainer.model.backbone import backbone_of
from trainer.model.head import RowSums, add_up, sums_of_logits
from trainer.model.own_head import backbone_gives


@dataclass(eq=False)
class Scoring:
    """A request for the loss of a document. `result` is for its reader, who sets `cancelled` on leaving."""

    document: Document
    adapter: Path | None
    result: "queue.SimpleQueue[float | Refusal]" = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False


def loss_of(adapters: Adapters, name: str, document: Document) -> float:
    """The sum of the losses of the supervised tokens, in nats. Raises FloatingPointError if it is no number."""
    batch = pack([document]).to(adapters.device)
    outputs = _backbone_outputs(adapters, name, batch.input_ids)
    hidden = outputs.last_hidden_state[0, batch.rows]

    def of_rows(rows: slice) -> RowSums:
        # Through the whole model: the adapter may have replaced the head, and the model may scale or cap its logits.
        with backbone_gives(adapters.base, outputs, hidden[rows]) as input_ids:
            logits = adapters.forward([name], input_ids=input_ids, use_cache=False).logits[0]
        return *sums_of_logits(logits, batch.targets[rows], None), None

    # As in training, one chunk after another: all logits may need more memory than everything else together.
    loss = float(add_up(of_rows, hidden, None, adapters.base.config.get_text_config().vocab_size)[0])
    if not math.isfinite(loss):
        raise FloatingPointError("the model's loss is no number")
    return loss


def _backbone_outputs(adapters: Adapters, name: str, input_ids: torch.Tensor) -> Any:
    """What the backbone makes of all tokens. The head then sees one of them only."""
    found = []

    def keep(_: torch.nn.Module, __: Any, outputs: Any) -> Any:
        found.append(outputs)
        return type(outputs)(**{**outputs, "last_hidden_state": outputs.last_hidden_state[:, :1]})

    handle = backbone_of(adapters.base).register_forward_hook(keep)
    try:
        adapters.forward([name], input_ids=input_ids, use_cache=False)
    finally:
        handle.remove()
    return found[0]
