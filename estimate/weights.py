"""Bytes of the frozen base on one device."""

import math

from contract.model.loaded_names import Shapes
from contract.recipe import Recipe
from estimate.architecture import head_of, is_embedding

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Of a number, by the precision that was settled."""

_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a number in 4 bits: itself, a scale in 8 bits for 64 of them, and one in fp32 for 256 of these (QLoRA's
double quantisation, arXiv:2305.14314, section 3)."""


def base_bytes(recipe: Recipe, precision: str, shapes: Shapes) -> float:
    """All of the base. base_bits leaves embeddings, head, norms and biases in `precision`."""
    wide = BYTES[precision]
    # fp16 without DeepSpeed is autocast: the weights are in fp16, see trainer/engines/ddp.py.
    total = 0.0
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        total += _quantised(recipe.base_bits, shape) if _is_quantised(recipe, name, shape, shapes) else wide * numbers
    return total


def _is_quantised(recipe: Recipe, name: str, shape: list[int], shapes: Shapes) -> bool:
    module = name.removesuffix(".weight")
    return (
        recipe.base_bits is not None
        and name.endswith(".weight")
        and len(shape) == 2
        and not is_embedding(module)
        and module != head_of(shapes)
        and any(part.isdigit() for part in module.split("."))
    )


def _quantised(bits: int | None, shape: list[int]) -> float:
    numbers = math.prod(shape)
    # In 8 bits each row has a scale in fp32 (LLM.int8(), arXiv:2208.07339).
    return numbers * _NF4 if bits == 4 else numbers + 4 * shape[0]


def largest_layer(shapes: Shapes) -> int:
    """Numbers in the largest of the numbered layers: what is gathered at a time of divided weights."""
    layers: dict[str, int] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if number is not None:
            layer = ".".join(parts[: number + 1])
            layers[layer] = layers.get(layer, 0) + math.prod(shape)
    return max(layers.values(), default=0)


def outside_layers(shapes: Shapes) -> int:
    """Numbers in embeddings, head and last norm."""
    return sum(
        math.prod(shape) for name, shape in shapes.items() if not any(part.isdigit() for part in name.split("."))
    )
