"""A small configuration with every mechanism of a given one: each kind of layer, windows and chunks of a few tokens,
several heads for each group, a few experts."""

from collections.abc import Mapping, Sequence
from typing import Any

VOCABULARY = 128
FIRST_SPECIAL = 100
"""From here on the vocabulary has only special tokens, such as the placeholder of an image."""

_NAMES_OF_SIZE = {
    64: "hidden_size n_embd d_model dim embedding_size embedding_dim lru_width out_hidden_size word_embed_proj_dim "
    "vision_output_dim projector_input_dim projector_output_dim input_embedding_size "
    "output_embedding_size ple_embed_dim",
    96: "intermediate_size ffn_dim n_inner d_ff dim_ff dff decoder_ffn_dim encoder_ffn_dim ffn_hidden_size "
    "intermediate_size_mlp dense_intermediate_size d_inner",
    48: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size expert_ffn_hidden_size "
    "moe_shared_expert_intermediate_size shared_intermediate_size",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions mamba_d_ssm "
    "attention_hidden_size",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts mamba_n_heads mamba_num_heads linear_num_value_heads "
    "attention_heads num_query_groups swa_num_attention_heads linear_num_heads zero_expert_num",
    2: "num_experts_per_tok moe_top_k moe_k moe_topk linear_num_key_heads index_n_heads "
    "index_topk_blocks depth encoder_layers num_layers_per_stack max_window_layers",
    32: "mamba_d_head mamba_head_dim attention_head_dim",
    16: "head_dim kv_lora_rank v_head_dim qk_head_dim index_head_dim linear_key_head_dim linear_value_head_dim "
    "swa_head_dim linear_head_dim dim_head d_head kv_channels block_multiple_of "
    "mamba_headdim adapter_rank router_hidden_size mamba_dt_rank hc_lowrank d_rel",
    8: "qk_rope_head_dim qk_nope_head_dim state_size mamba_d_state time_step_rank ssm_state_size rotary_dim "
    "hidden_size_per_layer_input chunk_size mamba_chunk_size attention_chunk_size original_max_position_embeddings "
    "floor_scale log_scaling_n_floor o_lora_rank gated_norm_rank laurel_rank block_size index_block_size",
    6: "sliding_window sliding_window_size window_size attention_window_size local_attention keep_window_size "
    "index_topk rel_extent",
    1: "n_group topk_group n_shared_experts first_k_dense_replace mamba_n_groups n_groups",
    24: "q_lora_rank",
    VOCABULARY: "vocab_size vocab_size_per_layer_input unpadded_vocab_size",
}
SIZES = {name: size for size, names in _NAMES_OF_SIZE.items() for name in names.split()}
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_GROUPS = ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks")
_PERIODS = ("_period", "_step", "_interval", "_pattern", "every_n_layers")
_LEFT_OUT = (
    "model_type",
    "transformers_version",
    "architectures",
    "quantization_config",
    "dtype",
    "id2label",
    "label2id",
)
_MOST_LAYERS = 8


def shrink(config: Any) -> Any:
    """Raises whatever the configuration's class raises if the sizes do not fit together."""
    return type(config)(**_shrunk(config.to_dict()))


def _shrunk(fields: Mapping[str, Any]) -> dict[str, Any]:
    layers = next((fields[name] for name in _LAYERS if type(fields.get(name)) is int), 0)
    kept = _kept_layers(fields, layers)
    small: dict[str, Any] = {}
    for place, (name, value) in enumerate(fields.items()):
        if name in _LEFT_OUT:
            continue
        if name in _LAYERS and type(value) is int:
            small[name] = len(kept)
        elif name == "num_kv_shared_layers":
            small[name] = sum(index >= layers - (value or 0) for index in kept)
        elif name in _GROUPS:
            small[name] = _groups(value, fields)
        elif _is_by_layer(value, layers):
            small[name] = _of_kept(name, value, kept, layers)
        elif isinstance(value, Mapping):
            small[name] = _small_rope(value) if name.startswith("rope_") else _shrunk(value)
        else:
            small[name] = _token(name, value, place) if "token" in name else _size(name, value)
    if "dynamic" in str(fields.get("rope_parameters")):
        small["max_position_embeddings"] = SIZES["original_max_position_embeddings"]
    if fields.get("qk_rope_head_dim") and fields.get("head_dim") == fields["qk_rope_head_dim"]:
        small["head_dim"] = small["qk_rope_head_dim"]
    if {"expand", "num_heads", "head_dim", "state_size"} <= small.keys():
        small["num_heads"] = small["expand"] * small["hidden_size"] // small["head_dim"]
    return small


def _kept_layers(fields: Mapping[str, Any], layers: int) -> list[int]:
    """The first layer of each kind, at least two; the first few if nothing says which kinds there are."""
    by_layer = [value for value in fields.values() if _is_by_layer(value, layers)]
    if not by_layer:
        periods = [value for name, value in fields.items() if name.endswith(_PERIODS) and type(value) is int]
        return list(range(min(layers, _MOST_LAYERS, max(2, *periods, 0))))
    shared = fields.get("num_kv_shared_layers") or 0
    seen: dict[Any, int] = {}
    for index in range(layers):
        seen.setdefault((index >= layers - shared, *(str(_of_layer(each, index, layers)) for each in by_layer)), index)
    kept = sorted(seen.values())
    return kept if len(kept) > 1 else list(range(min(layers, 2)))


def _is_by_layer(value: Any, layers: int) -> bool:
    """A value for each layer, or the numbers of some layers."""
    if layers < 2 or not value or isinstance(value, str):
        return False
    if isinstance(value, Mapping):
        return all(str(key).isdigit() for key in value)
    return isinstance(value, list) and (len(value) == layers or _is_numbers(value, layers))


def _is_numbers(value: Any, layers: int) -> bool:
    return all(type(each) is int and 0 <= each < layers for each in value) and len(set(value)) == len(value)


def _of_layer(value: Any, index: int, layers: int) -> Any:
    if isinstance(value, Mapping):
        return value.get(index, value.get(str(index)))
    return index in value if _is_numbers(value, layers) else value[index]


def _of_kept(name: str, value: Any, kept: Sequence[int], layers: int) -> Any:
    found = {new: _of_layer(value, old, layers) for new, old in enumerate(kept)}
    if isinstance(value, Mapping):
        return {new: _shrunk(each) for new, each in found.items() if each is not None}
    if _is_numbers(value, layers):
        return [new for new, is_one in found.items() if is_one]
    return [_size(name, each) for each in found.values()]


def _groups(groups: int | None, fields: Mapping[str, Any]) -> int:
    heads = next((fields[name] for name in _HEADS if type(fields.get(name)) is int), None)
    return 1 if groups == 1 else 4 if groups in (None, heads) else 2


def _size(name: str, value: Any) -> Any:
    """A size of 1 often means that a mechanism is off, and so it stays."""
    if name == "head_dim" and value is None:
        return SIZES[name]
    if "softcap" in name and value:
        return 1.0  # or the small model's scores would not come near it
    return SIZES.get(name, value) if type(value) is int and value > 1 else value


def _token(name: str, value: Any, place: int) -> Any:
    """A special token keeps its meaning, at a place of its own in the small vocabulary."""
    if isinstance(value, list):
        return [_token(name, each, place) for each in value]
    if name == "pad_token_id":  # positions may be counted from it
        return value and 0
    names_one = name.endswith(("_id", "_index", "_ids"))
    return (
        FIRST_SPECIAL + place % (VOCABULARY - FIRST_SPECIAL) if names_one and type(value) is int else _size(name, value)
    )


def _small_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _small_rope_value(name, value) for name, value in rope.items()}


def _small_rope_value(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _small_rope(value)
    if name.endswith("_factor") and isinstance(value, list):
        return value[:8]
    return [3, 3, 2] if name == "mrope_section" else _size(name, value)
