"""The portable form of an adapter: plain LoRA of one rank with alpha = r, which serving engines read alike."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GenerationConfig

from contract.export import ExportSpec
from contract.model.earlier_adapter import CONFIG, WEIGHTS, check_earlier_adapter
from contract.model.folder import LoadedBase, loaded_base
from contract.model.portable_adapter import check_portable, not_portable, portable_rank
from contract.recipe import Recipe
from trainer.data.end_tokens import add_end_tokens
from trainer.data.tokenizer import copy_tokenizer, save_tokenizer
from trainer.durable import atomic_folder
from trainer.model.pretrained import download
from trainer.tools.learned_ends import learned_ends

_PREFIX = "base_model.model."
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Modules that engines hold as one matrix. SGLang 0.5.23 fails on some adapters of a part of them."""


@dataclass(frozen=True)
class PortableAdapter:
    rank: int
    """r and alpha of every module, so that the scale is 1."""
    modules: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """A [rank, in] and B [out, rank] in fp32, by the module's name in the loaded base."""
    transposed: bool
    """Whether the base keeps its weights as [in, out], as GPT-2 does."""
    base: LoadedBase

    @property
    def target_modules(self) -> list[str]:
        """The last parts of the modules' names where these name nothing else in the base, else the whole names."""
        endings = {name.rpartition(".")[2] for name in self.modules}
        named = {name.removesuffix(".weight") for name in self.base.shapes if name.endswith(".weight")}
        also = {name for name in named - self.modules.keys() if name.rpartition(".")[2] in endings}
        return sorted(self.modules if also else endings)


def save_portable(recipe: Recipe, folder: Path, spec: ExportSpec) -> None:
    """Writes the recipe's adapter in portable form to a new folder, with the tokenizer and the end tokens of training.
    Raises InputError for an adapter that has no such form."""
    adapter = read_portable(recipe, spec.init)
    with atomic_folder(folder) as beside:
        # First, because transformers would look for the tokenizer's class by the base that adapter_config.json names.
        save_text_files(recipe, beside)
        write_portable(adapter, spec.base, beside)


def write_portable(adapter: PortableAdapter, base: str, folder: Path) -> None:
    """Writes the two files of PEFT. `base` is the name of the base model."""
    tensors = {
        f"{_PREFIX}{module}.lora_{part}.weight": tensor
        for module, matrices in adapter.modules.items()
        for part, tensor in zip("AB", matrices, strict=True)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(adapter, base), indent=2) + "\n")


def read_portable(recipe: Recipe, init: str) -> PortableAdapter:
    """Converts the recipe's adapter exactly, up to the rounding of its scale to fp32. Raises InputError for an adapter
    that has no portable form or does not fit the base."""
    folder = Path(recipe.adapter.start_from or "")
    config = json.loads((folder / CONFIG).read_bytes())
    check_portable(config, init)
    base = loaded_base(download(recipe.model))
    check_earlier_adapter(folder, base.shapes, Path(recipe.model).name)
    pairs = dict(_pairs(load_file(folder / WEIGHTS)))
    rank = portable_rank(a.shape[0] for a, _ in pairs.values())
    modules = {
        module: _padded(a, b.double() * _scale(config, module, len(a)), rank) for module, (a, b) in pairs.items()
    }
    modules |= {module: _nothing(base.shapes[f"{module}.weight"], rank) for module in _left_out(modules, base)}
    return PortableAdapter(rank, dict(sorted(modules.items())), bool(config.get("fan_in_fan_out")), base)


def save_text_files(recipe: Recipe, folder: Path) -> None:
    """Saves the tokenizer with its chat template, and a generation_config.json that stops where the learned answers
    ended."""
    if recipe.dataset.chat_template is not None:
        save_tokenizer(recipe, folder)
    else:
        copy_tokenizer(recipe, folder)
        # tokenizer.json has them too, and SGLang would take them for tokens that the adapter adds.
        (folder / "added_tokens.json").unlink(missing_ok=True)
    base = download(recipe.model)
    if (base / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(base)
    else:
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base, trust_remote_code=False))
    add_end_tokens(config, learned_ends(recipe))
    (folder / "generation_config.json").write_text(config.to_json_string())


def _pairs(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """A and B of each module. Raises InputError for tensors that are no LoRA of a linear module."""
    for name, a in tensors.items():
        module, found, _ = name.removeprefix(_PREFIX).partition(".lora_A.weight")
        if found:
            yield module, (a, tensors[name.replace("lora_A", "lora_B")])
        elif ".lora_B.weight" not in name:
            raise not_portable(f"engines do not load {name} alike, which is not LoRA on a linear module")


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """As PEFT scales this module's B A."""
    patterns = config.get("alpha_pattern") or {}
    alpha = float(patterns.get(get_pattern_key(list(patterns), module), config["lora_alpha"]))
    return alpha / rank**0.5 if config.get("use_rslora") else alpha / rank


def _padded(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    more = rank - len(a)
    pad = torch.nn.functional.pad
    return pad(a.float(), (0, 0, 0, more)).contiguous(), pad(b.float(), (0, more)).contiguous()


def _nothing(weight: list[int], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """LoRA that leaves a weight [out, in] as it is."""
    return torch.zeros(rank, weight[1]), torch.zeros(weight[0], rank)


def _left_out(modules: dict[str, Any], base: LoadedBase) -> Iterator[str]:
    """Modules without LoRA beside one with LoRA that engines hold in the same matrix."""
    for module in modules:
        parent, _, last = module.rpartition(".")
        for sibling in next((fused for fused in _FUSED if last in fused), ()):
            if f"{parent}.{sibling}" not in modules and f"{parent}.{sibling}.weight" in base.shapes:
                yield f"{parent}.{sibling}"


def _config(adapter: PortableAdapter, name: str) -> dict[str, Any]:
    """With those fields alone that every release of PEFT and every engine knows."""
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": name,
        "bias": "none",
        "fan_in_fan_out": adapter.transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": adapter.rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {},
        "target_modules": adapter.target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
