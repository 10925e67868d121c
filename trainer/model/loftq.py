"""Starts LoRA from what a base in 4 bits has lost (LoftQ: Li et al. 2023, arXiv:2310.08659)."""

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import Linear4bit
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D


@torch.no_grad()
def start_near_base(model: Any, base_model: str) -> None:
    """Sets A and B of every 4-bit layer so that s B A is, by the Frobenius norm, the best approximation of W - Q by
    their rank: W as it is in `base_model`, Q its 4 bits. The base stays Q: this is LoftQ's first iteration, as
    peft.replace_lora_weights_loftq makes it, which leaves out the scale s and wants CUDA.

    Holds all of `base_model` in the CPU's memory meanwhile.
    """
    original = AutoModelForCausalLM.from_pretrained(
        base_model, dtype="auto", use_safetensors=True, trust_remote_code=False
    )
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, Linear4bit):
            _start(module, _weight(original.get_submodule(name)))


def _weight(module: torch.nn.Module) -> torch.Tensor:
    """[out, in]"""
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
        # DoRA starts from the weight's own magnitudes, now those of Q + s B A.
        module.lora_magnitude_vector["default"].update_layer(
            base_layer=module.get_base_layer(), lora_A=a.weight, lora_B=b.weight, scaling=scale
        )
