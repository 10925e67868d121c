"""A tiny random model of every causal architecture that transformers has."""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 99
_ALIKE = {
    64: "hidden_size n_embd d_model dim embedding_size lru_width",
    96: "intermediate_size ffn_dim n_inner d_ff decoder_ffn_dim encoder_ffn_dim ffn_hidden_size intermediate_size_mlp",
    48: "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size "
    "shared_intermediate_size expert_ffn_hidden_size",
    2: "num_hidden_layers n_layer num_layers n_layers decoder_layers encoder_layers num_key_value_heads "
    "num_experts_per_tok moe_top_k moe_k moe_topk eos_token_id linear_num_key_heads index_n_heads",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts mamba_n_heads mamba_num_heads linear_num_value_heads",
    16: "head_dim kv_lora_rank v_head_dim qk_head_dim index_head_dim linear_key_head_dim linear_value_head_dim "
    "sliding_window",
    8: "qk_rope_head_dim qk_nope_head_dim state_size mamba_d_state time_step_rank ssm_state_size rotary_dim "
    "hidden_size_per_layer_input index_topk chunk_size",
    1: "n_group topk_group n_shared_experts first_k_dense_replace bos_token_id mamba_n_groups n_groups",
    32: "mamba_d_head mamba_head_dim",
    24: "q_lora_rank",
    128: "max_position_embeddings n_positions n_ctx",
    0: "pad_token_id",
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
}
SIZES = {name: size for size, names in _ALIKE.items() for name in names.split()}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_OF_ONE: dict[str, dict[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": ["full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 2,
    },
    "gemma4_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8},
    "mamba2": {"num_heads": 8},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp", "moe"], "num_hidden_layers": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}
_WITHOUT_GROUPS = {"axk2", "deepseek_v32", "dots3_note_text", "glm_moe_dsa", "longcat_flash"}
WITHOUT = {
    # Tens of millions of numbers whatever the sizes, or parts that are not installed.
    *("blt", "dots3_note", "fuyu", "gemma3n", "gemma4_unified", "got_ocr2", "moss_transcribe_diarize"),
    *("gemma4_assistant", "gemma4_unified_assistant", "moshi", "musicgen", "musicgen_melody", "roc_bert", "xlm"),
    # Their configurations want more than sizes.
    *("cohere_compass_text", "dbrx", "emu3", "mllama", "reformer", "zamba"),
}
KINDS = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - WITHOUT)

_MIXTURES = """
    afmoe aria_text axk1 axk2 bailing_hybrid cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1
    dots3_note_text ernie4_5_moe exaone_moe flex_olmo glm4_moe glm4_moe_lite glm_moe_dsa gpt_oss granitemoe
    granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe hy_v3 hy_v4 inkling2_text inkling_text jamba
    jetmoe kimi_linear kolibri1 laguna lfm2_moe llama4 llama4_text mellum mimo_v2_flash minimax minimax_m2
    minimax_m3_vl_text mixtral nemotron_h olmoe phimoe qwen2_moe qwen3_5_moe qwen3_5_moe_text qwen3_moe
    qwen3_next qwen4_exp qwen4_exp_text solar_open zaya
"""
MIXTURES = _MIXTURES.split()
"""Those with routed experts that can be adapted."""


def config_of(kind: str) -> Any:
    config = CONFIG_MAPPING[kind]
    names = inspect.signature(config.__init__).parameters
    sizes = {name: size for name, size in SIZES.items() if name in names}
    parts = {
        name: config_of(part.model_type).to_dict()
        for name, part in config.sub_configs.items()
        if getattr(part, "model_type", None) in CONFIG_MAPPING
    }
    if kind in _WITHOUT_GROUPS:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    return config(**sizes | parts | _OF_ONE.get(kind, {}))


def save_architecture(kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(kind))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def skeleton(folder: Path) -> Any:
    """The model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
