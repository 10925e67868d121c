"""The parts of a model's architecture that determine its memory in training, from config.json and the headers."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from contract.formatting import format_value
from contract.model.embeddings import is_embedding
from contract.model.loaded_names import Shapes

_HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class ModelFamily:
    """How the layers of an architecture compute, which determines what they keep for the backward pass."""

    norms: int = 2
    """Norms per layer whose inputs are different tensors."""
    norm: Literal["rms", "layer"] = "rms"
    gated: bool = True
    """down(act(gate) * up) instead of down(act(up))."""
    shared_input: bool = False
    """Attention and MLP read the same normed tensor."""
    fused_qkv: bool = False
    """q, k and v come from one module, and q and k are rotated: v keeps the unrotated ones in memory."""
    head_norms: bool = False
    """q and k have their own norms."""
    kernels: bool = False
    """Liger supports the architecture on a GPU (trainer/model/kernels.py)."""
    dropouts: tuple[str, ...] = ()
    """Config keys of the dropout rates for the outputs of attention and MLP."""


FAMILIES = {
    "gemma": ModelFamily(kernels=True),
    "glm": ModelFamily(),
    "gpt2": ModelFamily(norm="layer", gated=False, dropouts=("resid_pdrop", "resid_pdrop")),
    "gpt_neox": ModelFamily(
        norms=1, norm="layer", gated=False, fused_qkv=True, dropouts=("hidden_dropout", "hidden_dropout")
    ),
    "llama": ModelFamily(kernels=True),
    "mistral": ModelFamily(kernels=True),
    "phi": ModelFamily(norms=1, norm="layer", gated=False, shared_input=True, dropouts=("resid_pdrop", "resid_pdrop")),
    "qwen2": ModelFamily(kernels=True),
    "qwen3": ModelFamily(head_norms=True, kernels=True),
}
"""Architectures whose memory was measured. For others it is unknown what they keep."""


@dataclass(frozen=True)
class Architecture:
    family: ModelFamily
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    kept_by_activation: float
    """Number of tensors of the MLP's inner size that the activation function keeps; see estimate.activations."""
    dropouts: int
    """Active dropouts per layer."""
    attention_dropout: bool

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim


class NotEstimated(Exception):
    """Why a value cannot be estimated, for people."""


def count_parameters(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def output_head(shapes: Shapes) -> str | None:
    """The module of the output head; None if it is tied to the embeddings."""
    return next((name.removesuffix(".weight") for name in _HEADS if name in shapes), None)


def is_transposed(module: str, config: dict[str, Any]) -> bool:
    """GPT-2's own linear modules keep [in, out]; its head does not."""
    return (
        config.get("model_type") in ("gpt2", "gpt-sw3", "openai-gpt")
        and f"{module}.weight" not in _HEADS
        and not is_embedding(module)
    )


def read_architecture(config: dict[str, Any], shapes: Shapes) -> Architecture:
    """Raises NotEstimated for an unknown architecture."""
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise NotEstimated(
            f"what a model of type {format_value(kind)} keeps for its backward pass is unknown; it is known "
            f"for {', '.join(FAMILIES)}"
        )
    if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
        raise NotEstimated("what the attention of a model with a sliding window keeps is unknown")
    embedding = next((shape for name, shape in shapes.items() if is_embedding(name.removesuffix(".weight"))), None)
    if embedding is None:
        raise NotEstimated("the model's files have no embeddings")
    if kind == "gpt_neox" and not config.get("use_parallel_residual", True):
        family = replace(family, norms=2)
    vocabulary, hidden = embedding
    heads = _size(config, "num_attention_heads", "n_head")
    return Architecture(
        family=family,
        layers=_size(config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=_size(config, "intermediate_size", "n_inner", default=4 * hidden),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", default=heads),
        head_dim=_size(config, "head_dim", default=hidden // heads),
        vocabulary=vocabulary,
        kept_by_activation=_kept_by_activation(config),
        dropouts=sum(bool(config.get(name, 0.1 if kind == "gpt2" else 0.0)) for name in family.dropouts),
        attention_dropout=bool(config.get("attn_pdrop", 0.1) if kind == "gpt2" else config.get("attention_dropout")),
    )


def _size(config: dict[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        if isinstance(size := config.get(name), int) and size > 0:
            return size
    if default is None:
        raise NotEstimated(f"the model's config.json has no {names[0]}")
    return default


def _kept_by_activation(config: dict[str, Any]) -> float:
    """gelu_new is written as single operations, and keeps x, x/2, the tanh and one more than it. The others are one
    kernel that keeps its input."""
    name = config.get("hidden_act") or config.get("activation_function") or config.get("hidden_activation")
    if name is None and config.get("model_type") in ("gpt2", "phi"):
        name = "gelu_new"
    return 4 if name in ("gelu_new", "gelu_fast", "gelu_python_tanh") else 1
