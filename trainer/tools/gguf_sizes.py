"""A model's configuration as the fields of a GGUF file. What llama.cpp computes in another way is refused by name."""

import math
from collections.abc import Iterator
from typing import Any

import gguf
import numpy

from contract.failure import InputError
from contract.formatting import format_value
from contract.model.portable_adapter import GGUF_ARCHITECTURES, not_portable

Tensors = dict[str, "numpy.ndarray[Any, Any]"]

_SILU, _GELU = ("silu", "swish"), ("gelu_pytorch_tanh",)
_WINDOWED = ("gemma2", "gemma3")
"""Architectures whose windows llama.cpp applies, by their own pattern of layers."""
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
_EVERY = {"gemma2": 2, "gemma3": 6}
"""One layer of so many attends to everything, the last of each group."""


def add_sizes(writer: gguf.GGUFWriter, config: Any) -> Tensors:
    """Adds the fields of a text model's `config`; returns the tensors of its rotary embeddings. Raises InputError."""
    architecture = GGUF_ARCHITECTURES[config.model_type]
    for problem in _problems(architecture, config):
        raise not_portable(f"llama.cpp has no {config.model_type} with {problem}")
    size = head_size(config)
    writer.add_context_length(_context(architecture, config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if architecture in _WINDOWED or (architecture == "phi3" and config.sliding_window):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    return _add_rotary(writer, config, size)


def head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _context(architecture: str, config: Any) -> int:
    """As far as the window, where llama.cpp would attend beyond it."""
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    window = getattr(config, "sliding_window", None)
    longest = int(config.max_position_embeddings)
    return min(longest, window) if window and windowed and architecture not in _WINDOWED else longest


def _problems(architecture: str, config: Any) -> Iterator[str]:
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in (_GELU if architecture.startswith("gemma") else _SILU):
        yield f"the activation {format_value(activation)}"
    scale = getattr(config, "query_pre_attn_scalar", None)
    if scale is not None and scale != _squared_scale(architecture, config):
        yield f"query_pre_attn_scalar {scale}"
    if architecture in _WINDOWED:
        full = [kind == "full_attention" for kind in config.layer_types]
        if full != [layer % _EVERY[architecture] == _EVERY[architecture] - 1 for layer in range(len(full))]:
            yield f"such layer_types: {format_value(config.layer_types)}"
    if architecture == "gemma3" and (
        getattr(config, "final_logit_softcapping", None) or getattr(config, "attn_logit_softcapping", None)
    ):
        yield "soft caps"


def _squared_scale(architecture: str, config: Any) -> float:
    """llama.cpp knows the largest models by their number of layers."""
    if config.num_hidden_layers == _LAYERS_OF_27B.get(architecture):
        return float(config.hidden_size / config.num_attention_heads)
    return float(head_size(config))


def _add_rotary(writer: gguf.GGUFWriter, config: Any, size: int) -> Tensors:
    rope: dict[str, Any] = config.rope_parameters
    if "full_attention" in rope:
        local = rope["sliding_attention"]
        if local["rope_theta"] != 10_000 or local.get("rope_type", "default") != "default":
            raise _no_rope(config, local)
        rope = rope["full_attention"]
    turned = int(size * (rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1))
    writer.add_rope_dimension_count(turned)
    writer.add_rope_freq_base(rope["rope_theta"])
    match rope.get("rope_type", "default"):
        case "default":
            return {}
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
            return {}
        case "llama3" if GGUF_ARCHITECTURES[config.model_type] == "llama":
            return {"rope_freqs.weight": _llama3_divisors(rope, turned)}
        case "longrope" if config.model_type == "phi3":
            return _add_longrope(writer, config, rope)
    raise _no_rope(config, rope)


def _llama3_divisors(rope: dict[str, Any], size: int) -> "numpy.ndarray[Any, Any]":
    """By what each frequency is divided, as transformers' rope_type "llama3" does."""
    lengths = 2 * math.pi * rope["rope_theta"] ** (numpy.arange(0, size, 2) / size)
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = ((original / lengths - low) / (high - low)).clip(0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(numpy.float32)


def _add_longrope(writer: gguf.GGUFWriter, config: Any, rope: dict[str, Any]) -> Tensors:
    original = rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
    factor = rope.get("factor") or config.max_position_embeddings / original
    writer.add_rope_scaling_orig_ctx_len(original)
    growth = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    writer.add_rope_scaling_attn_factors(rope.get("attention_factor") or growth)
    return {
        f"rope_factors_{name}.weight": numpy.array(rope[f"{name}_factor"], numpy.float32) for name in ("long", "short")
    }


def _no_rope(config: Any, rope: dict[str, Any]) -> InputError:
    return not_portable(f"llama.cpp has no {config.model_type} with such rotary embeddings: {format_value(rope)}")
