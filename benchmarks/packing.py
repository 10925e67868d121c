"""Which architectures take packed rows, and how much faster those are: `python -m benchmarks.packing`.

First the table of every causal architecture of transformers, in Markdown, with the seconds that its check takes when
nothing is known. Then the same documents packed and one by one, side by side, on all cores. Their lengths are uniform,
so that half of a padded batch would be padding.
"""

import argparse
import contextlib
import datetime
import inspect
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.packing import pack
from trainer.model.base_model import load_model
from trainer.model.packing_check import find_path
from trainer.model.row_path import RowPath
from trainer.model.small_config import SIZES
from trainer.model.trained_model import TrainedModel

SHORT = ("llama", "gemma3_text", "qwen3_next", "bloom")
WINDOW = 128
MODEL_SIZES: dict[str, Any] = {
    "vocab_size": 8000,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, Any] = {
    "qwen3": lambda sizes: Qwen3Config(**sizes, head_dim=64),
    "gemma3_text": lambda sizes: Gemma3TextConfig(**sizes, head_dim=64, sliding_window=WINDOW),
    "mistral, windowed": lambda sizes: MistralConfig(**sizes, sliding_window=WINDOW),
    "phi3": lambda sizes: Phi3Config(**sizes),
    "qwen3_moe": lambda sizes: Qwen3MoeConfig(
        **sizes, head_dim=64, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256
    ),
}
OF_ONE: dict[str, dict[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
}
SHORT_SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
LONGEST = 256


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description="Check and time packed rows.")
    parser.add_argument("--short", action="store_true", help="four architectures, and one small model once")
    short = parser.parse_args().short
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print_table(SHORT if short else sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    if short:
        print_speed(["qwen3"], MODEL_SIZES | SHORT_SIZES, documents(4), rounds=1)
    else:
        print_speed(list(MODELS), MODEL_SIZES, documents(16), rounds=7)


def print_table(kinds: Any) -> None:
    now = datetime.datetime.now(datetime.UTC).date()
    print(f"{now}, transformers {transformers.__version__}, torch {torch.__version__}\n")
    print("| `model_type` | Rows | Logits by | Alone in, or why | Check |\n| --- | --- | --- | --- | --- |")
    packed = []
    for kind in kinds:
        with contextlib.redirect_stdout(None):
            began = time.perf_counter()
            path = path_of(kind)
            seconds = time.perf_counter() - began
        print(f"| `{kind}` | {describe(path)} | {seconds:.1f} s |", flush=True)
        packed.append(path.packed)
    print(f"\n{sum(packed)} of {len(packed)} are packed.\n")


def path_of(kind: str) -> RowPath:
    """With the configuration's defaults if a model can be made from them, else with sizes filled in."""
    path = RowPath(False)
    for config in configs_of(kind):
        path = find_path(config, None)
        if "to check it" not in path.because:
            break
    return path


def configs_of(kind: str) -> Iterator[Any]:
    config = CONFIG_MAPPING[kind]
    known = SIZES | {"num_key_value_heads": 2, "num_hidden_layers": 2}
    sizes = {name: known[name] for name in inspect.signature(config.__init__).parameters if name in known}
    for fields in ({}, sizes | OF_ONE.get(kind, {})):
        with contextlib.suppress(Exception):
            yield config(**fields)


def describe(path: RowPath) -> str:
    if not path.packed:
        return f"one by one | the model's own | ({path.because.replace('|', '/')})"
    head = "the output matrix" if path.plain_head else "the model's own"
    return f"packed | {head} | {', '.join(f'`{name}`' for name in path.separated)}"


def print_speed(names: list[str], sizes: dict[str, Any], given: list[Document], rounds: int) -> None:
    threads = f"{torch.get_num_threads()} threads, fp32"
    print(f"Tokens per second in forward and backward pass, median of {rounds}; {threads}")
    row = pack(given)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = Path(scratch) / name
            AutoModelForCausalLM.from_config(MODELS[name](sizes)).save_pretrained(folder)
            together, apart = load(folder), load(folder)
            apart.take_one_by_one("to compare")
            seconds: dict[TrainedModel, list[float]] = {module: [] for module in (together, apart)}
            for module in seconds:
                step(module, row)
            for _ in range(rounds):
                for module, taken in seconds.items():
                    taken.append(step(module, row))
            packed, alone = (sum(row.lengths) / statistics.median(taken) for taken in seconds.values())
            print(f"    {name:20} packed {packed:7.0f}   one by one {alone:7.0f}   {packed / alone:.2f} times as fast")


def load(folder: Path) -> TrainedModel:
    recipe = Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": {"r": 8}})
    return load_model(recipe, torch.float32, torch.device("cpu")).train()


def documents(count: int) -> list[Document]:
    numbers = random.Random(1)
    lengths = [round(LONGEST * (place + 0.5) / count) for place in range(count)]
    numbers.shuffle(lengths)
    rows = [[numbers.randrange(3, MODEL_SIZES["vocab_size"]) for _ in range(length + 1)] for length in lengths]
    return [Document(row, [place > len(row) // 2 for place in range(len(row))]) for row in rows]


def step(module: TrainedModel, row: Any) -> float:
    began = time.perf_counter()
    module(row)[0].backward()
    module.zero_grad()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
