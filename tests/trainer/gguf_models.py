"""Small models as GGUF files, and the real llama.cpp on them."""

from pathlib import Path

import torch
import xllamacpp
from transformers import AutoModelForCausalLM

from trainer.data.end_tokens import end_token_ids
from trainer.tools.gguf_model import F32, write_gguf


def write_base(folder: Path, file: Path) -> None:
    """Writes a base model of transformers in fp32, with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_gguf(model, folder, end_token_ids(model.generation_config), file, F32)


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

    def next_log_probabilities(self, prompt: list[int] | str) -> torch.Tensor:
        """Those of the token after a prompt, [vocabulary]. llama.cpp itself reads a text."""
        # It says nothing about a token that ends the answer or is a part of a character, so it takes a letter. The
        # probabilities are those before that.
        question = {"prompt": prompt, "n_predict": 1, "n_probs": self._vocabulary, "logit_bias": [[_LETTER, 1000.0]]}
        answer = self._server.handle_completions(question | {"temperature": 0.0, "cache_prompt": False})
        row = torch.full((self._vocabulary,), torch.nan)
        for candidate in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            row[candidate["id"]] = candidate["logprob"]
        return row
