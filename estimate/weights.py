"""Bytes of the frozen base on one device."""

import math
from collections.abc import Mapping

from contract.model.embeddings import is_embedding
from contract.model.fp8_modules import takes_fp8
from contract.model.loaded_names import Shapes
from estimate.architecture import output_head

BYTES_PER_PARAMETER = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Bytes per parameter, by the resolved precision. With fp8 all but the linear modules is in bf16."""

_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per parameter in 4 bits: the value, an 8-bit scale per 64 values, and an fp32 scale per 256 of these scales
(QLoRA's double quantisation, arXiv:2305.14314, section 3)."""


def base_bytes(bits: int | None, precision: str, shapes: Shapes, stored_bytes: Mapping[str, int]) -> float:
    """Bytes of the whole base. `bits` are the recipe's base_bits, which leave embeddings, head, norms and biases in
    `precision`; `stored_bytes` are those of weights that are loaded as they are stored."""
    element_bytes = BYTES_PER_PARAMETER[precision]
    # fp16 without DeepSpeed is autocast, with weights in fp16; see trainer/engines/ddp.py.
    total = 0.0
    for name, shape in shapes.items():
        if stored_bytes:
            total += stored_bytes.get(name, element_bytes * math.prod(shape))
        elif bits is not None and _is_quantised(name, shape, shapes):
            total += _quantised(bits, shape)
        else:
            total += element_bytes * math.prod(shape)
            if precision == "fp8" and takes_fp8(name.removesuffix(".weight"), shape):
                # The two bytes are one of each copy (trainer/model/fp8.py). Each row of both has a scale in fp32.
                total += 4 * sum(shape)
    return total


def _is_quantised(name: str, shape: list[int], shapes: Shapes) -> bool:
    module = name.removesuffix(".weight")
    return (
        name.endswith(".weight")
        and len(shape) == 2
        and not is_embedding(module)
        and module != output_head(shapes)
        and any(part.isdigit() for part in module.split("."))
    )


def _quantised(bits: int, shape: list[int]) -> float:
    parameters = math.prod(shape)
    # In 8 bits each row has a scale in fp32 (LLM.int8(), arXiv:2208.07339).
    return parameters * _NF4 if bits == 4 else parameters + 4 * shape[0]


def largest_layer_parameters(shapes: Shapes) -> int:
    """Parameters in the largest numbered layer, which sharded weights gather at a time."""
    layers: dict[str, int] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if number is not None:
            layer = ".".join(parts[: number + 1])
            layers[layer] = layers.get(layer, 0) + math.prod(shape)
    return max(layers.values(), default=0)


def parameters_outside_layers(shapes: Shapes) -> int:
    """Parameters in embeddings, head and last norm."""
    return sum(
        math.prod(shape) for name, shape in shapes.items() if not any(part.isdigit() for part in name.split("."))
    )
