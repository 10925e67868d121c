"""Which number format the frozen base weights take. The adapter and the optimizer are in fp32 always."""

from pathlib import Path

import torch

from contract.failure import FailureReason, InputError
from contract.machine import has_bf16
from contract.recipe import Recipe
from trainer.device import describe

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def resolve_precision(recipe: Recipe, device: torch.device) -> str:
    """ "bf16", "fp16" or "fp32": what the recipe asks for. Raises InputError where the device cannot do it."""
    native = has_native_bf16(device)
    if recipe.precision == "auto":
        return "bf16" if native else "fp32"
    if recipe.precision == "bf16" and not native:
        raise _unavailable("bf16", f'the device ({describe(device)}) does not compute in it; use "fp32" or "auto"')
    if recipe.precision == "fp16" and recipe.parallel.engine == "deepspeed" and device.type == "cpu":
        raise _unavailable("fp16", 'DeepSpeed has no fp16 on a CPU; use "bf16", or parallel.engine "ddp"')
    return recipe.precision


def _unavailable(given: str, why: str) -> InputError:
    return InputError(FailureReason.PRECISION_UNAVAILABLE, f'precision: got "{given}"; {why}', "precision")


def has_native_bf16(device: torch.device) -> bool:
    """False also where bfloat16 is only emulated: it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_bf16(Path("/proc/cpuinfo").read_text())
