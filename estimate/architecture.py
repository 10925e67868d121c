"""What of a model's architecture decides how much memory its training takes, from config.json and the headers."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from contract.model.loaded_names import Shapes
from contract.quote import quote

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")


@dataclass(frozen=True)
class Family:
    """How the layers of an architecture compute; what it keeps for the backward pass follows from this."""

    norms: int = 2
    """Of the stream, in a layer, whose inputs are different tensors."""
    norm: Literal["rms", "layer"] = "rms"
    gated: bool = True
    """down(act(gate) * up) in place of down(act(up))."""
    shared_input: bool = False
    """Attention and MLP read the same normed tensor."""
    fused_qkv: bool = False
    """q, k and v are made at once, and q and k are then turned: v keeps the untouched ones with it."""
    head_norms: bool = False
    """q and k have a norm of their own."""
    kernels: bool = False
    """On a GPU, Liger's (trainer/model/kernels.py)."""
    dropouts: tuple[str, ...] = ()
    """The config's names of the rates at which the outputs of attention and MLP are dropped."""


FAMILIES = {
    "gemma": Family(kernels=True),
    "glm": Family(),
    "gpt2": Family(norm="layer", gated=False, dropouts=("resid_pdrop", "resid_pdrop")),
    "gpt_neox": Family(
        norms=1, norm="layer", gated=False, fused_qkv=True, dropouts=("hidden_dropout", "hidden_dropout")
    ),
    "llama": Family(kernels=True),
    "mistral": Family(kernels=True),
    "phi": Family(norms=1, norm="layer", gated=False, shared_input=True, dropouts=("resid_pdrop", "resid_pdrop")),
    "qwen2": Family(kernels=True),
    "qwen3": Family(head_norms=True, kernels=True),
}
"""Those that the trainer packs (trainer/model/base_model.py). Of the others nobody has counted what they keep."""


@dataclass(frozen=True)
class Architecture:
    family: Family
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    kept_by_activation: float
    """Of an activation function: how many tensors of the MLP's inner size it keeps; see estimate.activations."""
    dropouts: int
    """In a layer, that are on."""
    attention_dropout: bool

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim


class Unknown(Exception):
    """Why something cannot be told; for people."""


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def head_of(shapes: Shapes) -> str | None:
    """The module of the output head; None where it is also the embeddings."""
    return next((name.removesuffix(".weight") for name in _HEADS if name in shapes), None)


def is_embedding(module: str) -> bool:
    return module.rsplit(".", 1)[-1] in _EMBEDDINGS


def embedding_rows(shapes: Shapes) -> int | None:
    """How many ids of tokens the model has embeddings for. None where their table has an unknown name."""
    found = (shape[0] for name, shape in shapes.items() if is_embedding(name.removesuffix(".weight")) and shape)
    return max(found, default=None)


def is_transposed(module: str, config: dict[str, Any]) -> bool:
    """GPT-2's own linear modules keep [in, out]; its head is like everybody's."""
    return (
        config.get("model_type") in ("gpt2", "gpt-sw3", "openai-gpt")
        and f"{module}.weight" not in _HEADS
        and not is_embedding(module)
    )


def read_architecture(config: dict[str, Any], shapes: Shapes) -> Architecture:
    """Raises Unknown for an architecture that nobody has counted."""
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise Unknown(
            f"what a model of type {quote(kind)} keeps for its backward pass has not been counted; of "
            f"{', '.join(FAMILIES)} it has"
        )
    if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
        raise Unknown("a model with a sliding window is not packed, and what it keeps has not been counted")
    embedding = next((shape for name, shape in shapes.items() if is_embedding(name.removesuffix(".weight"))), None)
    if embedding is None:
        raise Unknown("the model's files have no embeddings")
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
        raise Unknown(f"the model's config.json has no {names[0]}")
    return default


def _kept_by_activation(config: dict[str, Any]) -> float:
    """gelu_new is written out in single operations: it keeps x, x/2, the tanh, and one more than it. The others are one
    kernel, which keeps its input."""
    name = config.get("hidden_act") or config.get("activation_function") or config.get("hidden_activation")
    if name is None and config.get("model_type") in ("gpt2", "phi"):
        name = "gelu_new"
    return 4 if name in ("gelu_new", "gelu_fast", "gelu_python_tanh") else 1
