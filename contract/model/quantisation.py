"""How the files of a base model are quantised, by its config.json, and how each kind is loaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from contract.failure import InputError
from contract.formatting import format_value, truncate
from contract.model.config import unsupported

Method = Literal["awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq", "mxfp4"]
_LABELS: dict[Method, str] = {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
}
_OTHER_NAMES: dict[str, Method] = {
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "fbgemm_fp8": "fp8",
    "gptqmodel": "gptq",
}
_PACKED_BITS = (2, 4, 8)
_COMPRESSED_FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized")


@dataclass(frozen=True)
class Quantisation:
    method: Method
    settings: dict[str, Any]
    """The quantization_config of config.json."""

    @property
    def label(self) -> str:
        bits = "" if self.method in ("fp8", "mxfp4") else " in " + " and ".join(f"{n} bits" for n in self.bits)
        return _LABELS[self.method] + bits

    @property
    def bits(self) -> list[int]:
        """Bits of the weights; several for compressed-tensors with several schemes."""
        match self.method:
            case "bitsandbytes":
                return [4 if _is_true(self.settings, "load_in_4bit") else 8]
            case "compressed-tensors":
                return sorted({int(scheme["num_bits"]) for scheme in compressed_schemes(self.settings)})
            case "fp8":
                return [8]
            case "mxfp4":
                return [4]
        return [int(self.settings.get("bits", 4))]

    @property
    def trainable_bits(self) -> Literal[4, 8] | None:
        """Bits of a base that is loaded as it is stored. None for one that is dequantised, since nothing here computes
        gradients through such weights."""
        return (self.method == "bitsandbytes" and (4 if self.bits == [4] else 8)) or None


def find_quantisation(config: dict[str, Any]) -> Quantisation | None:
    """`config` is a model's, or contains those of several parts. Raises InputError for a kind that is not read."""
    for settings in _all_settings(config):
        quantisation = Quantisation(_method(settings), settings)
        problem = next(_CHECKS[quantisation.method](settings), None)
        if problem is not None:
            raise cannot_read(f"config.json has a quantization_config ({_LABELS[quantisation.method]}) with {problem}")
        return quantisation
    return None


def cannot_read(sign: str) -> InputError:
    known = ", ".join(_LABELS[method] for method in sorted(_LABELS))
    return unsupported(
        f"{sign}: it is quantised in a way that is not read here; {known} are. Give the model as it was before, in "
        'bf16, fp16 or fp32; with "base_bits": 4 or 8 in the recipe it is quantised when it is loaded'
    )


def compressed_schemes(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the weights, in a quantization_config of compressed-tensors."""
    groups = settings.get("config_groups")
    weights = [group.get("weights") for group in groups.values()] if isinstance(groups, dict) else []
    return [scheme for scheme in weights if isinstance(scheme, dict)]


def _all_settings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, given in config.items():
        if name in ("quantization_config", "compression_config") and given:
            if not isinstance(given, dict):
                raise cannot_read(f"config.json has a {name} that is {format_value(given)}")
            yield given if name == "quantization_config" else {"quant_method": "compressed-tensors", **given}
        elif name.endswith("_config") and isinstance(given, dict):
            yield from _all_settings(given)


def _method(settings: dict[str, Any]) -> Method:
    given = settings.get("quant_method")
    if given is None and any(_is_true(settings, f"load_in_{bits}bit") for bits in (4, 8)):
        return "bitsandbytes"
    method = next((known for known in _LABELS if known == given), _OTHER_NAMES.get(str(given)))
    if method is None:
        named = "without a quant_method" if given is None else f"({truncate(str(given))})"
        raise cannot_read(f"config.json has a quantization_config {named}")
    return method


def _is_true(settings: dict[str, Any], name: str) -> bool:
    return bool(settings.get(name) or settings.get(f"_{name}"))


def _check_awq(settings: dict[str, Any]) -> Iterator[str]:
    version = settings.get("version", settings.get("format", "gemm"))
    if str(version).lower() != "gemm":
        yield f"version {format_value(version)}, and only gemm is read"
    if settings.get("bits", 4) != 4:
        yield f"bits {format_value(settings['bits'])}, and only 4 are read"


def _check_bitsandbytes(settings: dict[str, Any]) -> Iterator[str]:
    if _is_true(settings, "load_in_4bit") == _is_true(settings, "load_in_8bit"):
        yield "neither or both of load_in_4bit and load_in_8bit"


def _check_compressed(settings: dict[str, Any]) -> Iterator[str]:
    schemes, groups = compressed_schemes(settings), settings.get("config_groups")
    if not schemes or not isinstance(groups, dict):
        yield "no scheme for weights in its config_groups"
        return
    own = [settings.get("format"), *(group.get("format") for group in groups.values() if isinstance(group, dict))]
    for given in own:
        if given is not None and given not in (*_COMPRESSED_FORMATS, "mixed-precision"):
            yield f"the format {format_value(given)}, and only {', '.join(_COMPRESSED_FORMATS)} are read"
    for scheme in schemes:
        if scheme.get("num_bits") not in (4, 8):
            yield f"num_bits {format_value(scheme.get('num_bits'))}, and only 4 and 8 are read"
    for name in ("sparsity_config", "transform_config"):
        given = settings.get(name)
        if given and not (isinstance(given, dict) and given.get("format") == "dense"):
            yield f"a {name}, which is not read"


def _check_fp8(settings: dict[str, Any]) -> Iterator[str]:
    block = settings.get("weight_block_size")
    if block is not None and not (isinstance(block, list) and len(block) == 2 and all(map(_is_size, block))):
        yield f"weight_block_size {format_value(block)}, which is not two sizes"


def _check_gptq(settings: dict[str, Any]) -> Iterator[str]:
    if settings.get("bits") not in _PACKED_BITS:
        yield f"bits {format_value(settings.get('bits'))}, and only {', '.join(map(str, _PACKED_BITS))} are read"
    stored = gptq_format(settings)
    if stored not in ("gptq", "gptq_v2"):
        yield f"the format {format_value(stored)}, and only gptq and gptq_v2 are read"


def gptq_format(settings: dict[str, Any]) -> Any:
    return settings.get("checkpoint_format") or settings.get("format") or "gptq"


def _check_mxfp4(_: dict[str, Any]) -> Iterator[str]:
    return iter(())


def _is_size(given: Any) -> bool:
    return isinstance(given, int) and given > 0


_CHECKS: dict[Method, Callable[[dict[str, Any]], Iterator[str]]] = {
    "awq": _check_awq,
    "bitsandbytes": _check_bitsandbytes,
    "compressed-tensors": _check_compressed,
    "fp8": _check_fp8,
    "gptq": _check_gptq,
    "mxfp4": _check_mxfp4,
}
