"""Models in the formats that people download, packed here number by number, and the same models unpacked."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Pack = Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Makes the tensors of a weight, and the weight that they stand for."""
_QUANTISED = re.compile(r".*\.layers\.\d+\..*proj\.weight")
_AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column of each place in a word, from the lowest bits (AutoAWQ, WQLinear_GEMM.from_linear)."""
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def write_quantised(kind: str, source: Path, folder: Path) -> tuple[Path, Path]:
    """Folders of the model in `source`, quantised, and with the weights that these numbers stand for, in fp32."""
    settings, pack = KINDS[kind]
    weights = load_file(source / "model.safetensors")
    stored: Tensors = {}
    plain: Tensors = {}
    torch.manual_seed(0)
    for name, weight in weights.items():
        if _QUANTISED.fullmatch(name):
            parts, plain[name] = pack(weight.float())
            stored |= {f"{name.removesuffix('.weight')}.{part}": tensor.contiguous() for part, tensor in parts.items()}
        else:
            stored[name] = plain[name] = weight
    write(source, folder / kind, stored, settings)
    write(source, folder / "plain", plain)
    return folder / kind, folder / "plain"


def write(source: Path, folder: Path, tensors: Tensors, settings: dict[str, Any] | None = None) -> None:
    """A copy of the model in `source` with other weights and quantization_config."""
    shutil.copytree(source, folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def into_words(values: torch.Tensor, bits: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """[rows, n] to words [rows, n * bits / 32], each number at the next higher bits."""
    places = 32 // bits
    words = []
    for row in values.tolist():
        row += [0] * (-len(row) % places)
        groups = [row[start : start + places] for start in range(0, len(row), places)]
        columns = list(enumerate(order or range(places)))
        numbers = [sum(group[column] << bits * place for place, column in columns) for group in groups]
        words.append([number - (1 << 32) * (number >= 1 << 31) for number in numbers])
    return torch.tensor(words, dtype=torch.int32)


def _rounded(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers [out, in], and scales and zeros [out, groups], by the range of each group."""
    grouped = weight.unflatten(1, (-1, group))
    low, high = grouped.amin(-1), grouped.amax(-1)
    scale = ((high - low) / (2**bits - 1)).half()
    zero = (-low / scale).round().clamp(1, 2**bits - 1).int()
    values = (grouped / scale[..., None] + zero[..., None]).round().clamp(0, 2**bits - 1).int()
    return values.flatten(1), scale, zero


def _gptq(bits: int, stored_zero: int) -> Pack:
    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        order = torch.randperm(weight.shape[1])
        groups = torch.empty(weight.shape[1], dtype=torch.int32)
        groups[order] = torch.arange(weight.shape[1], dtype=torch.int32) // 16
        sorted_values, scale, zero = _rounded(weight[:, order], bits, 16)
        values = torch.empty_like(sorted_values)
        values[:, order] = sorted_values
        parts = {
            "qweight": into_words(values, bits).T,
            "qzeros": into_words((zero - stored_zero).T, bits),
            "scales": scale.T,
            "g_idx": groups,
        }
        return parts, (values - zero[:, groups.long()]) * scale[:, groups.long()].float()

    return pack


def _awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    values, scale, zero = _rounded(weight, 4, 16)
    parts = {
        "qweight": into_words(values.T, 4, _AWQ_COLUMNS),
        "qzeros": into_words(zero.T, 4, _AWQ_COLUMNS),
        "scales": scale.T,
    }
    return parts, (values - zero.repeat_interleave(16, 1)) * scale.repeat_interleave(16, 1).float()


def _compressed(bits: int, symmetric: bool) -> Pack:
    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        values, scale, zero = _rounded(weight, bits, 16)
        scale = scale.bfloat16()
        zero = torch.full_like(zero, 2 ** (bits - 1)) if symmetric else zero
        parts = {
            "weight_packed": into_words(values, bits),
            "weight_scale": scale,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            parts["weight_zero_point"] = into_words(zero.T, bits).T
        return parts, (values - zero.repeat_interleave(16, 1)) * scale.repeat_interleave(16, 1).float()

    return pack


def _scaled(block: tuple[int, int] | None, name: str, dtype: torch.dtype) -> Pack:
    """A scale for each block, whose last ones are smaller; one for each row or all, with `block` (1, 0) or None."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = block or weight.shape
        columns = columns or weight.shape[1]
        largest = 448.0 if dtype is torch.float8_e4m3fn else 127.0
        scales = torch.stack(
            [
                torch.stack([part.abs().amax() / largest for part in strip.split(columns, 1)])
                for strip in weight.split(rows, 0)
            ]
        )
        spread = torch.kron(scales, torch.ones(rows, columns))[: weight.shape[0], : weight.shape[1]]
        values = weight / spread
        values = (values if dtype.is_floating_point else values.round()).to(dtype)
        stored = scales.reshape(()) if block is None else scales
        return {"weight": values, name: stored}, values.float() * spread

    return pack


def _compressed_config(stored: str, bits: int, kind: str, **scheme: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": True} | scheme
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": stored,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


_GROUPS = {"strategy": "group", "group_size": 16}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
KINDS: dict[str, tuple[dict[str, Any], Pack]] = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}, _awq),
    "fp8 blocks": (
        _FP8 | {"weight_block_size": [40, 36]},
        _scaled((40, 36), "weight_scale_inv", torch.float8_e4m3fn),
    ),
    "fp8 matrices": (_FP8, _scaled(None, "weight_scale_inv", torch.float8_e4m3fn)),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}, _gptq(4, 1)),
    "gptq of 8 bits": ({"quant_method": "gptq", "bits": 8, "checkpoint_format": "gptq_v2"}, _gptq(8, 0)),
    "compressed int4": (_compressed_config("pack-quantized", 4, "int", **_GROUPS), _compressed(4, True)),
    "compressed asymmetric": (
        _compressed_config("pack-quantized", 4, "int", **_GROUPS, symmetric=False),
        _compressed(4, False),
    ),
    "compressed fp8": (
        _compressed_config("float-quantized", 8, "float", strategy="channel"),
        _scaled((1, 0), "weight_scale", torch.float8_e4m3fn),
    ),
    "compressed int8": (
        _compressed_config("int-quantized", 8, "int", strategy="channel"),
        _scaled((1, 0), "weight_scale", torch.int8),
    ),
}


def write_mxfp4(source: Path, folder: Path) -> tuple[Path, Path]:
    """As write_quantised, for the experts of a gpt_oss."""
    weights = load_file(source / "model.safetensors")
    stored, plain = dict(weights), dict(weights)
    torch.manual_seed(0)
    for name, weight in weights.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = weight.shape
            codes = torch.randint(0, 16, (experts, outputs, inputs // 32, 32), dtype=torch.uint8)
            exponents = torch.randint(118, 124, (experts, outputs, inputs // 32), dtype=torch.uint8)
            del stored[name]
            stored[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
            stored[f"{name}_scales"] = exponents
            values = torch.tensor(_E2M1)[codes.int()] * 2.0 ** (exponents.float() - 127)[..., None]
            plain[name] = values.flatten(-2).transpose(1, 2).contiguous()
    write(source, folder / "mxfp4", stored, {"quant_method": "mxfp4"})
    write(source, folder / "plain", plain)
    return folder / "mxfp4", folder / "plain"
