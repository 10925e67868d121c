"""Which adapters have a portable form: plain LoRA of one rank with alpha = r, which serving engines read alike.

vLLM 0.33, SGLang 0.5.23 and llama.cpp each ignore or refuse something else that PEFT saves; docs/exports.md has the
table.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from contract.failure import FailureCode, InputError
from contract.formatting import format_value

PARAM = "format"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM reserves exactly the memory that an adapter needs (its --max-lora-rank)."""

GGUF_ARCHITECTURES = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "llama": "llama",
    "mistral": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""llama.cpp's name of an architecture, by the model_type for which an adapter is written as GGUF."""


def check_portable(config: dict[str, Any], init: str) -> None:
    """`config` is an adapter's adapter_config.json, and `init` the adapter.init that it started with. Raises InputError
    for an adapter that is more than LoRA on linear modules."""
    problem = next(_problems(config, init), None)
    if problem is not None:
        raise not_portable(problem)


def check_gguf_type(model_type: str) -> None:
    """Raises InputError for a base model whose adapters are not written as GGUF."""
    if model_type not in GGUF_ARCHITECTURES:
        raise not_portable(
            f"model_type {format_value(model_type)} is not one of {', '.join(GGUF_ARCHITECTURES)}, for which adapters "
            "are written as GGUF"
        )


def portable_rank(ranks: Iterable[int]) -> int:
    """The one rank of a portable adapter whose modules have these ranks. Raises InputError if it is too high."""
    highest = max(ranks)
    padded = next((rank for rank in RANKS if rank >= highest), None)
    if padded is None:
        raise not_portable(f"a rank of {highest} is above {RANKS[-1]}, vLLM's highest (adapter.r, rank_pattern)")
    return padded


def not_portable(problem: str) -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, f'{PARAM}: {problem}; export it with format "merged"', PARAM)


def _problems(config: dict[str, Any], init: str) -> Iterator[str]:
    if config.get("use_dora"):
        yield "engines do not load DoRA (adapter.dora)"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield "engines do not load trained biases (adapter.bias)"
    if saved := config.get("modules_to_save"):
        yield f"engines do not load modules that were trained whole (adapter.modules_to_save): {format_value(saved)}"
    if parameters := config.get("target_parameters"):
        yield f"engines do not load LoRA on routed experts alike (adapter.experts): {format_value(parameters)}"
    if init == "loftq":
        yield "an adapter that started with loftq (adapter.init) fits the 4-bit base alone"
    portable_rank([config.get("r", 8), *(config.get("rank_pattern") or {}).values()])
