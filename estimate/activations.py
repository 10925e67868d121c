"""Bytes that the layers keep for the backward pass, by tensor, as trainer/model/loss.py and PEFT's LoRA run them.

Of a frozen linear module nothing is kept: the gradient of its input needs its weight alone. What is kept for the tokens
of a row, in fp32 or in the precision of the base, follows from the operations that autograd differentiates:

    norm        RMSNorm its input in fp32, or as it comes with a kernel of its own; LayerNorm as it comes
    LoRA        A its input, B its input of r numbers, both as the base has them (trainer/model/fused_lora.py);
                modules that read the same tensor keep it once. Where PEFT does it they are in fp32; each module
                has a copy of its input where the base is not in fp32 too, or where there is dropout, and then the
                mask besides
    attention   q, k, v, its output, and for each head the log of a sum (FlashAttention-2, Dao 2023, arXiv:2307.08691)
    MLP         gate, act(gate) and up, with a kernel of its own gate and up; without a gate what the activation
                function keeps
    DoRA        the outputs of the base and of LoRA, which it scales

With gradient checkpointing a layer keeps its input, and all of the above is there for one layer at a time.
"""

from dataclasses import dataclass

from contract.recipe import Recipe
from estimate.adapter import Trained
from estimate.architecture import Architecture
from estimate.weights import BYTES

_ATTENTION_IN_FP32 = 256
"""Tokens of a document up to which attention on a CPU is in fp32 (trainer/model/attention.py)."""

_READS_STREAM = ("q_proj", "k_proj", "v_proj", "query_key_value", "c_attn")
_READS_ATTENTION = ("o_proj", "dense", "attn.c_proj", "self_attn.dense", "attention.dense")
_READS_INNER = ("down_proj", "dense_4h_to_h", "mlp.c_proj", "fc2")


@dataclass(frozen=True)
class Row:
    """The largest micro-batch that a device gets."""

    tokens: int
    documents: int
    supervised: int


def activation_bytes(
    recipe: Recipe,
    precision: str,
    on_gpu: bool,
    model: Architecture,
    trained: Trained,
    row: Row,
) -> float:
    """With what is there for a moment besides: the gradients that a layer hands down."""
    layer = row.tokens * _layer(recipe, precision, on_gpu, model, trained, row)
    wide = BYTES[precision]
    # Of the widest tensor in a layer: its own gradient, and that of the LoRA beside it.
    beside = wide if _is_fused(recipe, precision, trained) else 4
    passing = row.tokens * (wide + beside) * max(model.intermediate, model.query, model.hidden)
    stream = row.tokens * model.hidden * wide
    last_norm = row.tokens * model.hidden * (wide if _has_kernels(recipe, on_gpu, model) else 4)
    kept = model.layers * stream + layer if recipe.gradient_checkpointing else model.layers * layer
    return kept + last_norm + passing


def _layer(
    recipe: Recipe,
    precision: str,
    on_gpu: bool,
    model: Architecture,
    trained: Trained,
    row: Row,
) -> float:
    """Bytes for each token, the mean of all layers: a pattern may adapt some of them."""
    wide = BYTES[precision]
    family = model.family
    kernels = _has_kernels(recipe, on_gpu, model)
    normed = 4 if family.norm == "rms" and not kernels else wide
    norms = normed * family.norms * model.hidden
    if family.head_norms:
        # The inputs of the norms, which are kept by nobody else.
        norms += normed * (model.query + model.key)
    short = _is_short(on_gpu, row)
    numbers = 2 * model.query + 2 * model.key + (2 * model.query if family.fused_qkv else 0)
    attention: float = (4 if short else wide) * numbers + 4 * model.heads
    if model.attention_dropout and not on_gpu:
        # No kernel of a CPU's drops out: the weights, the mask, and the weights that are left are written out.
        attention += 3 * (4 if short else wide) * model.heads * row.tokens / row.documents
    gated = 2 if kernels else 3
    inner = (gated if family.gated else model.kept_by_activation) * model.intermediate * wide
    masks = model.dropouts * model.hidden * (1 if on_gpu else wide)
    return norms + attention + inner + masks + _lora(recipe, precision, on_gpu, model, trained, row)


def _lora(recipe: Recipe, precision: str, on_gpu: bool, model: Architecture, trained: Trained, row: Row) -> float:
    """Bytes for each token of all layers by their number."""
    wide, dropout = BYTES[precision], recipe.adapter.dropout > 0
    fused = _is_fused(recipe, precision, trained)
    mask = (1 if on_gpu else 4) if dropout else 0
    # fp16 is autocast, which makes of what A and B read one more copy and keeps that.
    narrow = wide if fused else 2 if precision == "fp16" else 4
    total, shared = 0, {}
    for module, lora in trained.loras.items():
        layer = _layer_of(module)
        if layer is None:
            continue
        total += narrow * lora.rank + (lora.out * (wide + 4) if trained.magnitudes else 0)
        if dropout or (wide < 4 and not fused):
            total += (narrow + mask) * lora.into
        else:
            shared[layer, _reads(module, model)] = wide * lora.into
    if row.documents == 1 and not (wide < 4 and _is_short(on_gpu, row)):
        # Attention's output of one document is what the next module reads, and is counted there.
        shared = {key: size for key, size in shared.items() if key[1] != "attention"}
    return (total + sum(shared.values())) / model.layers


def _is_fused(recipe: Recipe, precision: str, trained: Trained) -> bool:
    """Whether trainer/model/fused_lora.py stands in for PEFT."""
    plain = recipe.adapter.dropout == 0 and not trained.magnitudes and recipe.base_bits is None
    return plain and precision != "fp16" and recipe.parallel.zero_stage != 3


def _has_kernels(recipe: Recipe, on_gpu: bool, model: Architecture) -> bool:
    """Whether trainer/model/kernels.py puts its own into the layers."""
    return on_gpu and model.family.kernels and not recipe.torch_compile


def _is_short(on_gpu: bool, row: Row) -> bool:
    """Whether attention is in fp32 whatever the base is in."""
    return not on_gpu and row.tokens / max(1, row.documents) <= _ATTENTION_IN_FP32


def _layer_of(module: str) -> str | None:
    return next((part for part in module.split(".") if part.isdigit()), None)


def _reads(module: str, model: Architecture) -> str:
    """Which tensor of its layer."""
    if module.endswith(_READS_INNER):
        return "inner"
    if module.endswith(_READS_ATTENTION):
        return "attention"
    return "stream" if model.family.shared_input or module.endswith(_READS_STREAM) else "second stream"
