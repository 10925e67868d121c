"""Which number format the frozen base weights take. The adapter and the optimizer are in fp32 always."""

import torch

from contract.failure import FailureReason, InputError

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def resolve_precision(wanted: str, device: torch.device) -> str:
    """ "bf16" or "fp32", for a recipe's wish. Raises InputError where the device has no bfloat16 arithmetic."""
    native = has_native_bf16(device)
    if wanted == "auto":
        return "bf16" if native else "fp32"
    if wanted == "bf16" and not native:
        raise InputError(
            FailureReason.PRECISION_UNAVAILABLE,
            f'precision: the device ({describe(device)}) does not compute in bf16; use "fp32" or "auto"',
            "precision",
        )
    return wanted


def has_native_bf16(device: torch.device) -> bool:
    """False also where bfloat16 is only emulated: it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def describe(device: torch.device) -> str:
    """The device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
