"""Tiny random models and the rows that they are trained on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
    xLSTMConfig,
    xLSTMForCausalLM,
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n} plus {n}?"}, {"role": "assistant", "content": f"{2 * n}."}]}
    for n in range(8)
] + [
    {
        "messages": [
            {"role": "system", "content": f"Be brief, {name}."},
            {"role": "user", "content": "Say hello, please."},
            {"role": "assistant", "content": "Hello there!"},
            {"role": "user", "content": "And now goodbye."},
            {"role": "assistant", "content": "Goodbye, and see you soon."},
        ]
    }
    for name in ("Ada", "Ben", "Cleo", "Dov")
]


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,  # whole blocks of 64, which bitsandbytes reads rightly on every CPU
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}


MODELS: dict[str, Callable[..., Any]] = {
    "bloom": lambda vocab_size, **sizes: BloomForCausalLM(
        BloomConfig(vocab_size=vocab_size, hidden_size=64, n_layer=2, n_head=4)
    ),
    "gemma": lambda **sizes: GemmaForCausalLM(GemmaConfig(**sizes)),
    "gemma2": lambda **sizes: Gemma2ForCausalLM(
        # llama.cpp has no other scale of queries than that of their size.
        Gemma2Config(
            **sizes,
            sliding_window=8,
            query_pre_attn_scalar=sizes["head_dim"],
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        )
    ),
    "gemma3_text": lambda **sizes: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **sizes,
            sliding_window=8,
            query_pre_attn_scalar=sizes["head_dim"],
            layer_types=["sliding_attention"] * sizes["num_hidden_layers"],
        )
    ),
    "llama": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)),
    "llama of 4 layers": lambda **sizes: LlamaForCausalLM(LlamaConfig(**(sizes | {"num_hidden_layers": 4}))),
    "llama with rows of 96": lambda vocab_size, **sizes: LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab_size, **(sizes | {"intermediate_size": 96}))
    ),
    "mistral": lambda **sizes: MistralForCausalLM(MistralConfig(**sizes, sliding_window=None)),
    "phi3": lambda **sizes: Phi3ForCausalLM(Phi3Config(**sizes)),
    "qwen2": lambda **sizes: Qwen2ForCausalLM(Qwen2Config(**sizes)),
    "qwen3": lambda **sizes: Qwen3ForCausalLM(Qwen3Config(**sizes)),
    "qwen3_moe": lambda **sizes: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48)
    ),
    "qwen3_next": lambda **sizes: Qwen3NextForCausalLM(
        Qwen3NextConfig(
            **sizes,
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=48,
            shared_expert_intermediate_size=48,
        )
    ),
    "llama with dropout": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.5)),
    "gpt2 with dropout": lambda vocab_size, **sizes: GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=512, resid_pdrop=0.5)
    ),
    "gpt2 of 64 positions": lambda vocab_size, **sizes: GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    ),
    "xlstm": lambda vocab_size, **sizes: xLSTMForCausalLM(
        xLSTMConfig(vocab_size=vocab_size, hidden_size=64, num_hidden_layers=2, num_heads=4)
    ),
    "sliding": lambda **sizes: MistralForCausalLM(MistralConfig(**sizes, sliding_window=8)),
}


def add_model_and_rows(home: Path, model: Path) -> None:
    """With what a recipe of a service's test names: the model tiny, and the dataset rows.jsonl."""
    (home / "datasets").mkdir()
    (home / "datasets" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    shutil.copytree(model, home / "models" / "tiny")
