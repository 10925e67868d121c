"""Makes plain LoRA of an adapter whose initialisation has changed the base, so that it fits the base as it was."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file


def lora_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Copies of A and B on the CPU, named as in the adapter's file."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if _rank_dimension(name) is not None}


def make_plain(folder: Path, initial: dict[str, torch.Tensor]) -> None:
    """Rewrites the adapter that save_pretrained has put in `folder`; `initial` is what lora_tensors gave at its start.

    Such an initialisation splits W = W' + s B0 A0 and trains W' + s B A. As a change of W that is s (B A - B0 A0), or
    s [B, -B0] [A; A0]: LoRA of twice the rank at the same scale s (as PEFT's subtract_mutated_init).
    """
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    for name, start in initial.items():
        dimension = _rank_dimension(name)
        tensors[name] = torch.cat([tensors[name], -start if dimension == 1 else start], dim=dimension).contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})
    _double_rank(folder / "adapter_config.json")


def _rank_dimension(name: str) -> int | None:
    """Of A, [r, in], and of B, [out, r]. None for a tensor that is neither."""
    if "lora_A" in name or "lora_embedding_A" in name:
        return 0
    return 1 if "lora_B" in name or "lora_embedding_B" in name else None


def _double_rank(file: Path) -> None:
    config = json.loads(file.read_text())
    # The scale is alpha / r, or alpha / sqrt(r).
    factor = math.sqrt(2) if config["use_rslora"] else 2
    config["init_lora_weights"] = True
    config["r"] *= 2
    config["lora_alpha"] *= factor
    config["rank_pattern"] = {name: 2 * rank for name, rank in config["rank_pattern"].items()}
    config["alpha_pattern"] = {name: factor * alpha for name, alpha in config["alpha_pattern"].items()}
    file.write_text(json.dumps(config, indent=2, sort_keys=True))
