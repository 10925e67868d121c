"""Small models as GGUF files, and the real llama.cpp on them."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
import xllamacpp
from transformers import AutoModelForCausalLM

from contract.model.portable_adapter import GGUF_ARCHITECTURES
from trainer.tools.gguf_adapter import reorder_rows, tensor_names


def write_base(folder: Path, file: Path) -> None:
    """Writes a base model of transformers in fp32, with its byte-level BPE."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config.to_dict()
    architecture = GGUF_ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(file, architecture)
    _add_sizes(writer, model.config)
    _add_vocabulary(writer, json.loads((folder / "tokenizer.json").read_bytes()), model.config.vocab_size)
    names = tensor_names(architecture, config)
    for name, parameter in model.named_parameters():
        value = reorder_rows(name.rpartition(".")[0], parameter.detach().numpy(), config)
        # Gemma multiplies by 1 + weight.
        value = value + 1 if architecture.startswith("gemma") and "norm" in name else value
        tensor = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert tensor is not None, name
        writer.add_tensor(tensor, numpy.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config.model_type.startswith(("gemma2", "gemma3")):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], size: int) -> None:
    words: dict[str, int] = tokenizer["model"]["vocab"]
    special = {each["content"] for each in tokenizer["added_tokens"]}
    tokens = sorted(words, key=lambda word: words[word])
    assert len(tokens) == size
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


_LETTER = 40
"""The id of one in all vocabularies here."""


class LlamaCpp:
    """llama.cpp on one base, with an adapter or without."""

    def __init__(self, base: Path, adapter: Path | None, vocabulary: int) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(base)
        if adapter is not None:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, False
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        # Otherwise keys and values are rounded to 16 bits.
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.fit_params, parameters.verbosity = False, -1
        self._server = xllamacpp.Server(parameters)
        self._vocabulary = vocabulary

    def next_log_probabilities(self, ids: list[int]) -> torch.Tensor:
        """Those of the token after `ids`, [vocabulary]."""
        # It says nothing about a token that ends the answer or is a part of a character, so it takes a letter. The
        # probabilities are those before that.
        question = {"prompt": ids, "n_predict": 1, "n_probs": self._vocabulary, "logit_bias": [[_LETTER, 1000.0]]}
        answer = self._server.handle_completions(question | {"temperature": 0.0, "cache_prompt": False})
        row = torch.full((self._vocabulary,), torch.nan)
        for candidate in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            row[candidate["id"]] = candidate["logprob"]
        return row
