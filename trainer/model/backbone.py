"""The parts of a causal language model."""

from collections.abc import Iterator
from typing import Any

import torch


def backbone_of(causal_lm: Any) -> Any:
    """The model without its head. Llama 4 names another prefix than it has."""
    own = causal_lm.base_model
    return causal_lm.model if own is causal_lm and hasattr(causal_lm, "model") else own


def outer_parameters(causal_lm: Any) -> Iterator[torch.nn.Parameter]:
    """Those of the head, and of whatever lies between backbone and head."""
    inner = {id(parameter) for parameter in backbone_of(causal_lm).parameters()}
    return (parameter for parameter in causal_lm.parameters() if id(parameter) not in inner)
