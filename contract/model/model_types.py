"""The architectures for text generation that transformers has, by the model_type of config.json."""

import difflib
from typing import Any

from contract.formatting import format_value, truncate
from contract.model.config import unsupported

_NAMES = """
    afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation big_bird
    bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom blt camembert codegen cohere cohere2
    cohere2_moe cohere_compass_text cpmant ctrl cwm data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32
    deepseek_v4 diffllama doge dots1 dots3_note dots3_note_text electra emu3 ernie ernie4_5 ernie4_5_moe exaone4
    exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint fuyu gemma gemma2 gemma3 gemma3_text gemma3n
    gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_text
    git glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox
    gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared
    helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_text inkling_text internlm3
    iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4 llama4_text
    longcat_flash mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder moshi moss_transcribe_diarize
    mpt musicgen musicgen_melody mvp nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt
    pegasus persimmon phi phi3 phi4_multimodal phimoe plbart prophetnet qwen2 qwen2_moe qwen3 qwen3_5 qwen3_5_moe
    qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma reformer rembert
    roberta roberta-prelayernorm roc_bert roformer rwkv seed_oss smollm3 solar_open stablelm starcoder2 trocr
    vaultgemma whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod youtu zamba zamba2 zaya
"""
MODEL_TYPES = frozenset(_NAMES.split())
"""Those that AutoModelForCausalLM loads without code of the model's own; a test compares them with transformers."""
IMAGE_TEXT_TYPES = frozenset(
    {
        *("idefics3", "internvl", "lfm2_vl", "llava", "mistral3"),
        *("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm"),
    }
)
"""Those that AutoModelForImageTextToText alone loads, and whose text part is tested to train by itself."""


def check_model_type(config: dict[str, Any]) -> None:
    """Raises InputError for a model that transformers cannot load for text generation."""
    kind = config.get("model_type")
    if kind is None:
        raise unsupported(
            'config.json has no model_type, the name of the architecture, such as "llama"; copy the whole file from '
            "where the model comes"
        )
    if kind in MODEL_TYPES | IMAGE_TEXT_TYPES:
        return
    given = f"model_type of config.json is {format_value(kind)}"
    if "auto_map" in config:
        raise unsupported(
            f"{given}, and it has custom code, which is never run here; use a model of an architecture that "
            "transformers has"
        )
    close = difflib.get_close_matches(truncate(str(kind)), MODEL_TYPES | IMAGE_TEXT_TYPES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise unsupported(
        f"{given}, which transformers does not have as an architecture for text generation; {hint}use a model such as "
        "a llama, qwen3, mistral or gemma3"
    )
