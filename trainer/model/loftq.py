"""Starts LoRA from the error of quantising a base to 4 bits (LoftQ: Li et al. 2023, arXiv:2310.08659)."""

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import Linear4bit
from transformers.pytorch_utils import Conv1D

from trainer.model.pretrained import load_pretrained


@torch.no_grad()
def start_near_base(model: Any, base_model: str) -> None:
    """Sets A and B of every 4-bit layer so that s B A is the best approximation, in the Frobenius norm, of W - Q by
    their rank: W are the weights in `base_model`, Q the same in 4 bits. The base stays Q. This is LoftQ's first
    iteration, as in peft.replace_lora_weights_loftq, which omits the scale s and needs CUDA.

    Holds all of `base_model` in the CPU's memory meanwhile.
    """
    original = load_pretrained(base_model)
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, Linear4bit):
            _start(module, _weight(original.get_submodule(name)))


def _weight(module: torch.nn.Module) -> torch.Tensor:
    """The weight as [out, in]."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def _start(module: Linear4bit, weight: torch.Tensor) -> None:
    quantized = module.get_base_layer().weight
    lost = weight.to(quantized.device, torch.float32) - dequantize_4bit(quantized.data, quantized.quant_state).float()
    left, values, right = torch.linalg.svd(lost, full_matrices=False)
    rank, scale = module.r["default"], module.scaling["default"]
    root = (values[:rank] / scale).sqrt()
    a, b = module.lora_A["default"], module.lora_B["default"]
    a.weight.copy_(root[:, None] * right[:rank])
    b.weight.copy_(left[:, :rank] * root)
    if "default" in module.lora_magnitude_vector:
        # DoRA starts from the weight's magnitudes, which are now those of Q + s B A.
        module.lora_magnitude_vector["default"].update_layer(
            base_layer=module.get_base_layer(), lora_A=a.weight, lora_B=b.weight, scaling=scale
        )
