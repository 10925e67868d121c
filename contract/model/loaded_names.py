"""Names and shapes of a base model's weights after transformers 5 has loaded them; files have different names.

PEFT names modules as they are loaded, and so do adapters and recipes. The renamings are those of
transformers.conversion_mapping for causal language models, as far as linear modules are concerned.
"""

import re
from collections.abc import Iterable
from typing import Any

from contract.model.model_types import IMAGE_TEXT_TYPES
from contract.model.stacked_experts import stack_experts

Shapes = dict[str, list[int]]

_HEADS = ("lm_head.weight", "embed_out.weight")
# Tables that files keep among the weights but that are not parameters, and layers that only predict further tokens.
_NOT_LOADED = re.compile(
    r".*(\battn\.(masked_)?bias|\battention\.(masked_)?bias|rotary_emb\.inv_freq"
    r"|(?<!moe_statics)\.e_score_correction_bias|\.(expert_bias|balancing_biases|layer_scalar|tid2eid)"
    r"|\.(diagonal_decay|key_decay|query_decay|slope_rate)|\.act_fn\.(beta|eps))"
    r"|(.*\.)?mtp(_layers)?\..*"
)
_LAYER = re.compile(r"model\.(?:language_model\.)?layers\.(\d+)\.")

_BACKBONE = {"h": "transformer.", "layers": "model.", "decoder": "model."}
"""The backbone's name, by the first part of names in files that omit it."""
_COMPOSITE = [
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(model\.)?language_model\.(model\.)?", "model.language_model."),
    (r"^(vision_tower|audio_tower|multi_modal_projector|vision_embed_tokens)\.", r"model.\1."),
]
_TEXT_OF_COMPOSITE = [
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(model\.)?language_model\.(model\.)?", "model."),
]
"""For architectures of which only the text part is loaded."""
_QWEN_VL = [(r"^model\.(?!language_model\.|visual\.)", "model.language_model."), (r"^visual\.", "model.visual.")]
_MIXTRAL = [(r"\.block_sparse_moe\.", ".mlp.")]
_GRANITE = [
    (r"block_sparse_moe\.input_linear\.weight$", "block_sparse_moe.experts.gate_up_proj"),
    (r"block_sparse_moe\.output_linear\.weight$", "block_sparse_moe.experts.down_proj"),
    (r"block_sparse_moe\.router\.layer\.", "block_sparse_moe.router."),
]
_RENAMED: dict[str, list[tuple[str, str]]] = {
    "axk2": [
        (r"\.W_down\.", ".mlp.fc1."),
        (r"\.W_up\.", ".mlp.fc2."),
        (r"\.self_attn\.q_b_proj\.", ".self_attn.q_gate_proj."),
    ],
    "bailing_hybrid": [
        (r"^model\.word_embeddings\.", "model.embed_tokens."),
        (r"\.attention\.", ".self_attn."),
        (r"\.self_attn\.f_proj\.", ".self_attn.forget_gate.f_proj."),
        (r"\.self_attn\.dense\.", ".self_attn.o_proj."),
    ],
    "deepseek_v4": [
        (r"^(model\.)?embed\.", "model.embed_tokens."),
        (r"^(model\.)?head\.", "lm_head."),
        (r"\.attn\.", ".self_attn."),
        (r"\.ffn\.", ".mlp."),
        (r"\.indexer\.compressor\.", ".compressor.indexer."),
        (r"\.indexer\.weights_proj\.", ".compressor.indexer.scorer.weights_proj."),
        (r"\.self_attn\.indexer\.wq_b\.", ".self_attn.compressor.indexer.q_b_proj."),
        (r"\.wq_a\.", ".q_a_proj."),
        (r"\.wq_b\.", ".q_b_proj."),
        (r"\.wkv\.", ".kv_proj."),
        (r"\.wgate\.", ".gate_proj."),
        (r"\.wo_a\.", ".o_a_proj."),
        (r"\.wo_b\.", ".o_b_proj."),
        (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
        (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
        (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
    ],
    "fuyu": _COMPOSITE,
    "gemma3": _COMPOSITE,
    "gemma3n_text": _TEXT_OF_COMPOSITE,
    "got_ocr2": _COMPOSITE,
    "gpt_neox": [(r"^embed_out\.", "lm_head.")],
    "granitemoe": _GRANITE,
    "granitemoehybrid": _GRANITE,
    "granitemoeshared": _GRANITE,
    "hrm_text": [(r"\.attn\.", ".self_attn.")],
    "hy_v3": [(r"\.mlp\.router\.gate\.", ".mlp.gate."), (r"\.mlp\.shared_mlp\.", ".mlp.shared_experts.")],
    "hy_v4": [(r"\.linear_gate\.", ".gate_proj.")],
    "inkling2_text": [
        (r"^model\.llm\.unembed\.", "lm_head."),
        (r"^model\.llm\.embed\.", "model.embed_tokens."),
        (r"^model\.llm\.", "model."),
        (r"\.attn\.wq_du\.", ".self_attn.q_proj."),
        (r"\.attn\.wk_dv\.", ".self_attn.k_proj."),
        (r"\.attn\.wv_dv\.", ".self_attn.v_proj."),
        (r"\.attn\.wr_du\.", ".self_attn.r_proj."),
        (r"\.attn\.wo_ud\.", ".self_attn.o_proj."),
        (r"\.attn\.gate_attn\.", ".self_attn.gate_proj."),
        (r"\.attn\.attn_sink_proj\.", ".self_attn.sink_proj."),
    ],
    "internvl": _COMPOSITE,
    "kimi_linear": [
        (r"\.self_attn\.(f_[ab]_proj)\.", r".self_attn.forget_gate.\1."),
        (r"\.block_sparse_moe\.", ".mlp."),
    ],
    "laguna": [(r"\.mlp\.shared_expert\.", ".mlp.shared_experts.")],
    "lfm3": [(r"\.self_attn\.gate_proj\.", ".self_attn.g_proj.")],
    "llama4": _TEXT_OF_COMPOSITE,
    "llava": _COMPOSITE,
    "minimax": _MIXTRAL,
    "minimax_m2": _MIXTRAL,
    "mistral3": _COMPOSITE,
    "mixtral": _MIXTRAL,
    "mllama": _TEXT_OF_COMPOSITE,
    "nemotron_h": [(r"^backbone\.", "model.")],
    "phimoe": [*_MIXTRAL, (r"\.gate\.weight$", ".router.weight")],
    "qwen2_5_vl": _QWEN_VL,
    "qwen2_vl": _QWEN_VL,
    "qwen3_5": _TEXT_OF_COMPOSITE,
    "qwen3_5_moe": _TEXT_OF_COMPOSITE,
    "qwen3_5_moe_text": _TEXT_OF_COMPOSITE,
    "qwen3_5_text": _TEXT_OF_COMPOSITE,
    "qwen4_exp": _TEXT_OF_COMPOSITE,
    "qwen4_exp_text": _TEXT_OF_COMPOSITE,
}
_OTHER_PARTS = ("vision_model.", "multi_modal_projector.", "model.visual.", "visual.", "vision_tower.", "vqmodel.")
"""Prefixes in files of composite architectures."""
_SPLIT: dict[str, dict[str, list[str]]] = {
    "hrm_text": {
        "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
        "self_attn.gqkv_proj": [f"self_attn.{name}_proj" for name in ("gate", "q", "k", "v")],
    },
}
"""Matrices that are loaded as several, with equal numbers of rows."""


def model_type(config: dict[str, Any]) -> str:
    found = config.get("model_type")
    return found if isinstance(found, str) else ""


def loaded_shapes(shapes: Shapes, config: dict[str, Any]) -> Shapes:
    """Shapes of the parameters that transformers makes from a folder's weights. A head that is tied to the embeddings
    counts once."""
    kind = model_type(config)
    renamed = {_rename(name, kind): shape for name, shape in _with_backbone(shapes).items()}
    last = _layers(config)
    tied = _is_tied(config)
    kept = {
        name: shape
        for name, shape in renamed.items()
        if not _NOT_LOADED.fullmatch(name)
        and not (tied and name in _HEADS)
        and not (last is not None and (found := _LAYER.match(name)) and int(found[1]) >= last)
        and not (_RENAMED.get(kind) is _TEXT_OF_COMPOSITE and name.startswith(_OTHER_PARTS))
    }
    return stack_experts(_divided(kept, _SPLIT.get(kind, {})))


def _is_tied(config: dict[str, Any]) -> bool:
    """Whether the head is the embeddings. The configuration of the whole decides for a model that is loaded whole."""
    own = config.get("tie_word_embeddings")
    if model_type(config) in IMAGE_TEXT_TYPES and own is not None:
        return own is True
    return any(each.get("tie_word_embeddings") is True for each in (config, text_config(config)))


def _with_backbone(shapes: Shapes) -> Shapes:
    backbone = next(filter(None, map(_left_out_backbone, shapes)), "")
    return {name if name in _HEADS else backbone + name: shape for name, shape in shapes.items()}


def _left_out_backbone(name: str) -> str:
    found = re.match(r"(?:(h|layers)|(decoder)\.layers)\.\d", name)
    return _BACKBONE[found[1] or found[2]] if found else ""


def _rename(name: str, kind: str) -> str:
    for pattern, replacement in _RENAMED.get(kind, []):
        name = re.sub(pattern, replacement, name)
    return name


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) else {}


def _layers(config: dict[str, Any]) -> int | None:
    """Number of layers that are loaded. Some models' files have more, which predict further tokens."""
    found = (each.get("num_hidden_layers") for each in (text_config(config), config))
    return next((number for number in found if isinstance(number, int)), None)


def _divided(shapes: Shapes, parts: dict[str, list[str]]) -> Shapes:
    return {new: size for name, shape in shapes.items() for new, size in _parts(name, shape, parts)}


def _parts(name: str, shape: list[int], parts: dict[str, list[str]]) -> Iterable[tuple[str, list[int]]]:
    for whole, names in parts.items():
        if f".{whole}." in name:
            return [(name.replace(whole, part), [shape[0] // len(names), *shape[1:]]) for part in names]
    return [(name, shape)]
