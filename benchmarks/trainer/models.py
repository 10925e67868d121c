"""Models with random weights in the sizes of real ones."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.trainer.work import SEED
from trainer.device import this_device

Sizes = dict[str, Any]

SMALL_LLAMA: Sizes = {
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_LLAMA_3_8B: Sizes = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
_QWEN3_30B_A3B: Sizes = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "num_hidden_layers": 8,  # of 48
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "vocab_size": 151936,
}
_GPT_OSS_20B: Sizes = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 6,  # of 24
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
}
_SMALL: Sizes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "vocab_size": 49152} | {
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "pad_token_id": 0,
}
_WINDOW = 128
_TINY: Sizes = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
}

RANDOM = {
    "llama-3-8b": _LLAMA_3_8B,
    "qwen3-moe": _QWEN3_30B_A3B,
    "gpt-oss": _GPT_OSS_20B,
    "small-qwen3": _SMALL | {"model_type": "qwen3"},
    "small-gemma3": _SMALL | {"model_type": "gemma3_text", "sliding_window": _WINDOW},
    "small-mistral": _SMALL | {"model_type": "mistral", "sliding_window": _WINDOW},
    "small-phi3": _SMALL | {"model_type": "phi3"},
    "small-qwen3-moe": _SMALL
    | {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
    "tiny-llama": _LLAMA_3_8B | _TINY,
    "tiny-qwen3-moe": _QWEN3_30B_A3B | _TINY | {"moe_intermediate_size": 48, "num_experts": 8},
    "tiny-gpt-oss": _GPT_OSS_20B | _TINY | {"num_local_experts": 8},
}
"""By the name that --model takes. The mixtures have fewer layers than the real ones, and everything else of theirs."""


def random_model(folder: Path, sizes: Sizes, tokenizer_of: Path) -> Path:
    """A model that has learned nothing, with the tokenizer of a model of no more tokens than its vocabulary."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(SEED)
    device = this_device()
    with device:
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**sizes), dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return folder
