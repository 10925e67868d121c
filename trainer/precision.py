"""The number format of the frozen base weights. The adapter and the optimizer are always in fp32."""

from collections import Counter
from pathlib import Path

import torch

from contract.failure import FailureCode, InputError
from contract.machine import FP8_CAPABILITY, has_bf16, resolved_precision
from contract.recipe import Recipe
from trainer.device import describe

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8": torch.bfloat16}
"""Format of the base by the resolved precision. With fp8 the weights of its linear modules are cast from it."""

_FSDP_IN_BF16 = "2.9"
"""The first torch that keeps an adapter in fp32 beside such a base."""


def resolve_precision(recipe: Recipe, device: torch.device) -> str:
    """The recipe's precision, with "auto" resolved. Raises InputError if the device does not support it.

    fp8 runs on a CPU too, slower than bf16 and with a GPU's roundings: the service refuses it there, and tests need no
    GPU.
    """
    native = has_native_bf16(device)
    if recipe.parallel.engine == "fsdp" and torch.__version__ < _FSDP_IN_BF16:
        if recipe.precision == "bf16":
            raise _unavailable("bf16", f'with "fsdp" it needs torch {_FSDP_IN_BF16}; use "fp32", or another engine')
        native = False
    if recipe.precision == "bf16" and not native:
        raise _unavailable("bf16", f'the device ({describe(device)}) does not compute in it; use "fp32" or "auto"')
    if recipe.precision == "fp8" and not _multiplies_in_fp8(device):
        needed = "a GPU from compute capability 8.9 on (Ada, Hopper and newer)"
        raise _unavailable("fp8", f'it needs {needed}, and this is a {describe(device)}; use "bf16" or "auto"')
    if recipe.precision == "fp16" and recipe.parallel.engine == "deepspeed" and device.type == "cpu":
        raise _unavailable("fp16", 'DeepSpeed has no fp16 on a CPU; use "bf16", or parallel.engine "ddp"')
    return resolved_precision(recipe, native)


def _multiplies_in_fp8(device: torch.device) -> bool:
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def _unavailable(given: str, why: str) -> InputError:
    return InputError(FailureCode.PRECISION_UNAVAILABLE, f'precision: got "{given}"; {why}', "precision")


def check_precision(model: torch.nn.Module, precision: str) -> None:
    """Raises RuntimeError if the frozen weights are not in the resolved precision, apart from the few that an
    architecture keeps in fp32 and those in 4 or 8 bits. An engine might silently load them in another format."""
    formats = Counter(parameter.dtype for parameter in model.parameters() if not parameter.requires_grad)
    held, _ = Counter({dtype: formats[dtype] for dtype in DTYPES.values()}).most_common(1)[0]
    in_fp8 = torch.float8_e4m3fn in formats
    if held is not DTYPES[precision] or in_fp8 != (precision == "fp8"):
        raise RuntimeError(f"the model was loaded in {held}{' with fp8' if in_fp8 else ''}, in place of {precision}")


def has_native_bf16(device: torch.device) -> bool:
    """False also if bfloat16 is only emulated, which would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_bf16(Path("/proc/cpuinfo").read_text())
