"""Whether rows that are padded to one batch, and join and leave it, have the logits that each has alone. A small random
model of the same configuration shows it, as for packed rows in training."""

import logging
from typing import Any

import torch

from contract.inference import Sampling
from inference.adapters import Adapters
from inference.batch import PaddedBatch, Singles
from inference.row import BASE, AnswerRow
from trainer.infrastructure import is_infrastructure, is_out_of_memory
from trainer.model.packing_check import make_small_model
from trainer.model.small_config import FIRST_SPECIAL, shrink

log = logging.getLogger(__name__)

_TOLERANCE = 1e-4
_PROMPTS = (9, 3, 14)
"""Tokens of the rows. Two are longer than a window of the small model."""
_STEPS = 6


def takes_padded_rows(config: Any) -> bool:
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            small = make_small_model(shrink(config))
            together, alone = (_logits(kind, small) for kind in (PaddedBatch, Singles))
    except Exception as error:
        if is_infrastructure(error) or is_out_of_memory(error):
            raise
        log.warning("a small %s cannot be run in a batch: %s; its answers come one by one", config.model_type, error)
        return False
    if torch.allclose(together, alone, rtol=_TOLERANCE, atol=_TOLERANCE):
        return True
    log.warning("a small %s has other logits in a batch; its answers come one by one", config.model_type)
    return False


def _logits(kind: type[PaddedBatch] | type[Singles], model: Any) -> torch.Tensor:
    """Of rows that join one after another, while the first one leaves. The tokens are given, not chosen."""
    batch = kind(Adapters(model, 1))
    numbers = torch.Generator().manual_seed(0)
    found, rows = [], []
    for length in _PROMPTS:
        rows.append(
            AnswerRow(BASE, torch.randint(3, FIRST_SPECIAL, (length,), generator=numbers).tolist(), Sampling(), 0)
        )
        found.append(batch.add(rows[-1:])[None])
        for _ in range(_STEPS):
            for row in rows:
                row.tokens.append(int(torch.randint(3, FIRST_SPECIAL, (), generator=numbers)))
            found.append(batch.step())
        if len(rows) == 2:
            batch.drop(rows[:1])
            del rows[0]
    return torch.cat(found)
