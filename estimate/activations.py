"""Bytes that the layers keep for the backward pass, by tensor, as trainer.model.trained_model and PEFT's LoRA run them.

A frozen linear module keeps nothing, since the gradient of its input needs only its weight. The operations that
autograd differentiates determine what is kept per token of a row, in fp32 or in the precision of the base:

    norm        RMSNorm: its input in fp32, or unchanged with its own kernel; LayerNorm: its input unchanged
    LoRA        A: its input, B: its input of r elements, both in the base's precision (trainer/model/fused_lora.py);
                modules that read the same tensor keep it once. With PEFT's own LoRA they are in fp32, and each
                module has a copy of its input if the base is not in fp32, or with dropout, which also keeps a mask
    attention   q, k, v, its output, and one log-sum-exp per head (FlashAttention-2, Dao 2023, arXiv:2307.08691)
    MLP         gate, act(gate) and up; with its own kernel gate and up; without a gate what the activation
                function keeps
    DoRA        the outputs of the base and of LoRA, which it scales

With gradient checkpointing a layer keeps only its input, and the rest exists for one layer at a time.
"""

from functools import lru_cache

from contract.recipe import Recipe
from estimate.adapter import TrainedParameters
from estimate.architecture import Architecture
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.weights import BYTES_PER_PARAMETER

_ATTENTION_IN_FP32 = 256
"""Maximum tokens of a document for which attention on a CPU is in fp32 (trainer/model/attention.py)."""

_READS_STREAM = ("q_proj", "k_proj", "v_proj", "query_key_value", "c_attn")
_READS_ATTENTION = ("o_proj", "dense", "attn.c_proj", "self_attn.dense", "attention.dense")
_READS_INNER = ("down_proj", "dense_4h_to_h", "mlp.c_proj", "fc2")


def activation_bytes(recipe: Recipe, kind: DeviceKind, model: SizedModel, row: PackedRow) -> float:
    """Includes the gradients that a layer passes down, which exist only for a moment."""
    architecture, element_bytes = model.architecture, BYTES_PER_PARAMETER[kind.precision]
    layer = row.tokens * _layer(recipe, kind, model, row)
    # For the widest tensor of a layer: its own gradient, and that of the LoRA beside it.
    beside = element_bytes if _is_fused(recipe, kind.precision, model.trained) else 4
    widest = max(architecture.intermediate, architecture.query, architecture.hidden)
    passing = row.tokens * (element_bytes + beside) * widest
    stream = row.tokens * architecture.hidden * element_bytes
    has_kernels = _has_kernels(recipe, kind.on_gpu, architecture)
    last_norm = row.tokens * architecture.hidden * (element_bytes if has_kernels else 4)
    layers = architecture.layers
    kept = layers * stream + layer if recipe.gradient_checkpointing else layers * layer
    return kept + last_norm + passing


def _layer(recipe: Recipe, kind: DeviceKind, model: SizedModel, row: PackedRow) -> float:
    """Bytes per token, averaged over all layers, since a pattern may adapt only some of them."""
    architecture, element_bytes = model.architecture, BYTES_PER_PARAMETER[kind.precision]
    family, kernels = architecture.family, _has_kernels(recipe, kind.on_gpu, architecture)
    normed = 4 if family.norm == "rms" and not kernels else element_bytes
    norms = normed * family.norms * architecture.hidden
    if family.head_norms:
        # The inputs of these norms, which nothing else keeps.
        norms += normed * (architecture.query + architecture.key)
    gated = 2 if kernels else 3
    per_inner = gated if family.gated else architecture.kept_by_activation
    inner = per_inner * architecture.intermediate * element_bytes
    masks = architecture.dropouts * architecture.hidden * (1 if kind.on_gpu else element_bytes)
    return norms + _attention(kind, architecture, row) + inner + masks + _lora(recipe, kind, model, row)


def _attention(kind: DeviceKind, architecture: Architecture, row: PackedRow) -> float:
    """Bytes per token of one layer."""
    element_bytes = 4 if _is_short(kind.on_gpu, row) else BYTES_PER_PARAMETER[kind.precision]
    fused = 2 * architecture.query if architecture.family.fused_qkv else 0
    elements = 2 * architecture.query + 2 * architecture.key + fused
    attention: float = element_bytes * elements + 4 * architecture.heads
    if architecture.attention_dropout and not kind.on_gpu:
        # No CPU kernel has dropout, so the weights, the mask and the remaining weights are all materialised.
        attention += 3 * element_bytes * architecture.heads * row.tokens / row.documents
    return attention


def _lora(recipe: Recipe, kind: DeviceKind, model: SizedModel, row: PackedRow) -> float:
    """Bytes per token of all LoRAs, divided by the number of layers."""
    element_bytes, dropout = BYTES_PER_PARAMETER[kind.precision], recipe.adapter.dropout > 0
    fused = _is_fused(recipe, kind.precision, model.trained)
    mask = (1 if kind.on_gpu else 4) if dropout else 0
    # fp16 is autocast, which makes and keeps one more copy of the inputs of A and B.
    narrow = element_bytes if fused else 2 if kind.precision == "fp16" else 4
    total, shared = 0, {}
    for module, lora in model.trained.loras.items():
        layer = _layer_of(module)
        if layer is None:
            continue
        total += narrow * lora.rank + (lora.out_features * (element_bytes + 4) if model.trained.magnitudes else 0)
        if dropout or (element_bytes < 4 and not fused):
            total += (narrow + mask) * lora.in_features
        else:
            shared[layer, _reads(module, model.architecture.family.shared_input)] = element_bytes * lora.in_features
    if row.documents == 1 and not (element_bytes < 4 and _is_short(kind.on_gpu, row)):
        # For one document, attention's output is what the next module reads, and is counted there.
        shared = {key: size for key, size in shared.items() if key[1] != "attention"}
    return (total + sum(shared.values())) / model.architecture.layers


def _is_fused(recipe: Recipe, precision: str, trained: TrainedParameters) -> bool:
    """Whether trainer/model/fused_lora.py replaces PEFT's LoRA."""
    plain = recipe.adapter.dropout == 0 and not trained.magnitudes and recipe.base_bits is None
    return plain and precision != "fp16" and recipe.parallel.zero_stage != 3


def _has_kernels(recipe: Recipe, on_gpu: bool, model: Architecture) -> bool:
    """Whether trainer/model/kernels.py replaces parts of the layers."""
    return on_gpu and model.family.kernels and not recipe.torch_compile


def _is_short(on_gpu: bool, row: PackedRow) -> bool:
    """Whether attention is in fp32 even if the base is not."""
    return not on_gpu and row.tokens / max(1, row.documents) <= _ATTENTION_IN_FP32


@lru_cache(maxsize=4096)
def _layer_of(module: str) -> str | None:
    return next((part for part in module.split(".") if part.isdigit()), None)


@lru_cache(maxsize=4096)
def _reads(module: str, shared_input: bool) -> str:
    """The tensor of its layer that a module reads."""
    if module.endswith(_READS_INNER):
        return "inner"
    if module.endswith(_READS_ATTENTION):
        return "attention"
    return "stream" if shared_input or module.endswith(_READS_STREAM) else "second stream"
