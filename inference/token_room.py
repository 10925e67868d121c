"""How many tokens the device's memory holds."""

from typing import Any

import torch
from transformers import DynamicCache

from trainer.micro_batch import free_memory

_SHARE = 0.5
"""The rest is for adapters, activations, and the second copy of a layer when rows join."""
_PROBE = 8


def token_room(base: Any) -> int:
    """Tokens of all answers whose keys and values fit beside the base model."""
    return int(_SHARE * free_memory(base.device, local_ranks=1) / bytes_of_token(base))


@torch.inference_mode()
def bytes_of_token(base: Any) -> float:
    """Bytes of the keys and values of one token in all layers, as the base itself makes them."""
    cache = DynamicCache()
    base(input_ids=torch.zeros(1, _PROBE, dtype=torch.long, device=base.device), past_key_values=cache, use_cache=True)
    layers = [layer for layer in cache.layers if layer.is_initialized]
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) / _PROBE
