"""The weights that the tensors of a quantised model's files stand for, without torch."""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from contract.failure import InputError
from contract.formatting import truncate
from contract.json_objects import unique_object
from contract.model.config import unsupported
from contract.model.quantisation import Quantisation, compressed_schemes
from contract.model.tensor_header import TensorHeader

Tensors = dict[str, TensorHeader]

_FOR_ACTIVATIONS = re.compile(r".*\.(input_scale|input_zero_point|activation_scale|output_scale|[kqv]_scale)")
"""Tensors that only quantise activations, which training leaves in its precision."""
_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")


@dataclass(frozen=True)
class StoredWeight:
    """One weight of the model, in several tensors."""

    kind: str
    """How they are read: a name in trainer/model/dequantise."""
    shape: list[int]
    parts: dict[str, str]
    """Names of the tensors in the files, by what each is."""
    bits: int = 8
    """Bits of a packed number."""


def stored_weights(tensors: Tensors, quantisation: Quantisation) -> dict[str, StoredWeight]:
    """The quantised weights by their plain names. Raises InputError for tensors that do not belong together."""
    found: dict[str, StoredWeight] = {}
    for kind in _KINDS[quantisation.method]:
        for name in tensors:
            if name.endswith(kind.main):
                stem = name.removesuffix(kind.main)
                named = {"main": name} | {part: stem + suffix for part, suffix in kind.others.items()}
                parts = {part: each for part, each in named.items() if each in tensors}
                stored = _read(kind, parts, tensors, quantisation)
                if stored is not None:
                    found[_plain_name(kind.name, stem)] = stored
    return found


def without_parts(tensors: Tensors, stored: Iterable[StoredWeight]) -> Tensors:
    """The tensors that are weights by themselves."""
    parts = {name for each in stored for name in each.parts.values()}
    return {
        name: tensor for name, tensor in tensors.items() if name not in parts and not _FOR_ACTIVATIONS.fullmatch(name)
    }


Reading = tuple[list[int], int] | None
"""Shape and bits; None where the tensor is not one of a quantised weight."""


@dataclass(frozen=True)
class _Kind:
    name: str
    main: str
    """Suffix of the tensor that only such weights have."""
    others: dict[str, str]
    """Suffixes of the other parts."""
    read: Callable[[Tensors, Quantisation], Reading]


def _read(kind: _Kind, parts: dict[str, str], tensors: Tensors, quantisation: Quantisation) -> StoredWeight | None:
    name = parts["main"]
    try:
        reading = kind.read({part: tensors[each] for part, each in parts.items()}, quantisation)
    # Missing parts, wrong numbers of dimensions, and JSON that is none.
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise _mixed_up(name, str(error) if type(error) is ValueError else "its parts do not belong together") from None
    return None if reading is None else StoredWeight(kind.name, reading[0], parts, reading[1])


def _mixed_up(name: str, problem: str) -> InputError:
    return unsupported(f"{truncate(name)} cannot be dequantised: {problem}; give the files that belong together")


def _plain_name(kind: str, stem: str) -> str:
    return stem if kind in ("mxfp4", "nf4", "scaled") else f"{stem}.weight"


def _scaled(tensors: Tensors, quantisation: Quantisation) -> Reading:
    """A weight [..., out, in] in 8 bits, with a scale for all of it, each row, or each block."""
    if "weight" not in tensors:
        return None
    weight, scale = tensors["weight"], tensors["main"]
    if weight.dtype not in ("F8_E4M3", "F8_E5M2", "I8"):
        return None
    block_of(weight.shape, scale.shape, block_sizes(quantisation))
    return weight.shape, 8


def block_sizes(quantisation: Quantisation) -> list[tuple[int, int]]:
    """Sizes of the blocks that share a scale, by the configuration."""
    given = [quantisation.settings.get("weight_block_size")]
    for scheme in compressed_schemes(quantisation.settings):
        given.append(scheme.get("block_structure"))
        if isinstance(group := scheme.get("group_size"), int) and group > 0:
            given.append([1, group])
    return [(block[0], block[1]) for block in given if isinstance(block, list) and len(block) == 2]


def block_of(shape: list[int], scale: list[int], sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Rows and columns that share a scale. Raises ValueError if no size gives the scales' shape.

    The last block of a side may be smaller, so that the shapes alone do not tell the size.
    """
    rows, columns = (shape[-2], shape[-1]) if len(shape) > 1 else (1, shape[-1])
    if math.prod(scale) == 1 or (len(scale) == 3 and scale[1:] == [1, 1]):
        return rows, columns
    if scale in ([rows], [*shape[:-1], 1]):
        return 1, columns
    for block in sizes:
        if scale[-2:] == [-(-rows // block[0]), -(-columns // block[1])]:
            return block
    raise ValueError(f"scales of {scale} for a weight of {shape}")


def _gptq(tensors: Tensors, _: Quantisation) -> Reading:
    """32 / bits rows of [in, out] in each word."""
    packed, out = tensors["main"].shape
    groups, words = tensors["zeros"].shape
    bits = _whole(words * 32, out)
    inside = _whole(packed * 32, bits)
    if tensors["scales"].shape != [groups, out] or ("groups" in tensors and tensors["groups"].shape != [inside]):
        raise ValueError("its scales or groups have other shapes")
    if bits not in (2, 4, 8) or inside % groups:
        raise ValueError(f"it has {inside} inputs of {bits} bits in {groups} groups")
    return [out, inside], bits


def _awq(tensors: Tensors, _: Quantisation) -> Reading:
    """8 columns of [in, out] in each word."""
    inside, words = tensors["main"].shape
    groups = tensors["scales"].shape[0]
    if tensors["zeros"].shape != [groups, words] or tensors["scales"].shape != [groups, words * 8] or inside % groups:
        raise ValueError("its scales or zeros have other shapes")
    return [words * 8, inside], 4


def _packed(tensors: Tensors, quantisation: Quantisation) -> Reading:
    """32 / bits columns of [out, in] in each word."""
    shape = _numbers(tensors["shape"])
    rows, words = tensors["main"].shape
    bits = next(bits for bits in [*quantisation.bits, 0] if bits == 0 or -(-shape[1] * bits // 32) == words)
    scales = tensors["scales"].shape
    if bits == 0 or shape[0] != rows or scales[0] not in (1, rows) or shape[1] % scales[-1]:
        raise ValueError(f"a shape of {shape} for words of {[rows, words]} and scales of {scales}")
    return shape, bits


def _numbers(tensor: TensorHeader) -> list[int]:
    data = tensor.read_bytes()
    each = _whole(len(data), math.prod(tensor.shape))
    return [int.from_bytes(data[start : start + each], "little") for start in range(0, len(data), each)]


def _mxfp4(tensors: Tensors, _: Quantisation) -> Reading:
    """Blocks [experts, out, in / 32, 16] of two numbers in a byte, which are loaded as [experts, in, out]."""
    *shape, groups, size = tensors["main"].shape
    if size != 16 or tensors["scales"].shape != [*shape, groups] or len(shape) != 2:
        raise ValueError("its blocks and scales have other shapes")
    return [shape[0], groups * 32, shape[1]], 4


def _nf4(tensors: Tensors, _: Quantisation) -> Reading:
    state = next((tensors[part] for part in _STATES if part in tensors), None)
    if state is None:
        return None
    shape = json.loads(state.read_bytes(), object_pairs_hook=unique_object)["shape"]
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"a shape of {truncate(str(shape))}")
    if math.prod(tensors["weight"].shape) != -(-math.prod(shape) // 2):
        raise ValueError(f"a shape of {truncate(str(shape))} for {math.prod(tensors['weight'].shape)} bytes")
    return list(shape), 4


def _int8(tensors: Tensors, _: Quantisation) -> Reading:
    weight = tensors["weight"]
    if tensors["main"].shape != weight.shape[:1] or weight.dtype != "I8":
        raise ValueError("its scales have another shape")
    return weight.shape, 8


def _whole(number: int, divisor: int) -> int:
    if number % divisor:
        raise ValueError(f"{number} is no multiple of {divisor}")
    return number // divisor


_SCALED = _Kind("scaled", "_scale", {"weight": "", "zeros": "_zero_point"}, _scaled)
_NF4 = _Kind(
    "nf4",
    ".absmax",
    {
        "weight": "",
        "codes": ".quant_map",
        "nested_absmax": ".nested_absmax",
        "nested_codes": ".nested_quant_map",
        **{state: f".{state}" for state in _STATES},
    },
    _nf4,
)
_PACKED = _Kind(
    "packed",
    ".weight_packed",
    {
        "scales": ".weight_scale",
        "shape": ".weight_shape",
        "zeros": ".weight_zero_point",
        "groups": ".weight_g_idx",
    },
    _packed,
)
_KINDS: dict[str, list[_Kind]] = {
    "awq": [_Kind("awq", ".qweight", {"zeros": ".qzeros", "scales": ".scales"}, _awq)],
    "bitsandbytes": [_NF4, _Kind("int8", ".SCB", {"weight": ".weight", "format": ".weight_format"}, _int8)],
    "compressed-tensors": [_PACKED, _SCALED],
    "fp8": [_Kind("scaled", "_scale_inv", {"weight": ""}, _scaled), _SCALED],
    "gptq": [_Kind("gptq", ".qweight", {"zeros": ".qzeros", "scales": ".scales", "groups": ".g_idx"}, _gptq)],
    "mxfp4": [_Kind("mxfp4", "_blocks", {"scales": "_scales"}, _mxfp4)],
}
"""Kinds of weights by the method."""
