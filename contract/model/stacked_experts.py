"""Names and shapes of routed experts as transformers 5 loads them: all of a layer in one tensor.

Most files have the matrices of each expert apart. Its gate and its up projection become one matrix.
"""

import re
from collections.abc import Iterable

_Shapes = dict[str, list[int]]

_ONE = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)\.weight")
_STACKED = re.compile(r"(.+\.experts)\.(fc1|fc2|w13|w2)[._]weight")  # Aria's and Inkling's
_PARTS = {
    **dict.fromkeys(("gate_proj", "w1"), "gate"),
    **dict.fromkeys(("up_proj", "w3", "fc1", "w13"), "up"),
    **dict.fromkeys(("down_proj", "w2", "fc2"), "down_proj"),
}
_JETMOE = re.compile(r".*\.(input|output)_linear\.weight")  # a module with nothing but the stacked matrices


def stack_experts(shapes: _Shapes) -> _Shapes:
    """Shapes of all parameters, with the experts of each layer in one. Names of other forms stay as they are."""
    stacked: _Shapes = {}
    parts: dict[str, dict[str, list[list[int]]]] = {}
    for name, shape in shapes.items():
        if (one := _ONE.fullmatch(name)) and one[3] in _PARTS:
            parts.setdefault(one[1], {}).setdefault(_PARTS[one[3]], []).append(shape)
        elif whole := _STACKED.fullmatch(name):
            part = "down_proj" if _PARTS[whole[2]] == "down_proj" else "gate_up_proj"
            stacked[f"{whole[1]}.{part}"] = shape
        else:
            stacked[name] = shape
    return stacked | {f"{module}.{name}": shape for module, of in parts.items() for name, shape in _stacks(of)}


def _stacks(parts: dict[str, list[list[int]]]) -> Iterable[tuple[str, list[int]]]:
    gate, up = parts.get("gate", []), parts.get("up", [])
    if gate and up:
        yield "gate_up_proj", [len(up), gate[0][0] + up[0][0], *up[0][1:]]
    elif up:
        yield "up_proj", [len(up), *up[0]]
    if down := parts.get("down_proj"):
        yield "down_proj", [len(down), *down[0]]


def is_routed_expert(module: str) -> bool:
    return "experts" in module.split(".")


def expert_parameters(shapes: _Shapes) -> list[str]:
    """Names of the tensors with all routed experts of a layer, [experts, out, in] or [experts, in, out]."""
    return [
        name
        for name, shape in shapes.items()
        if len(shape) == 3 and (is_routed_expert(name) or _JETMOE.fullmatch(name) is not None)
    ]


def adapted_parameter(module: str, a: list[int], b: list[int], shapes: _Shapes) -> str | None:
    """The parameter of routed experts that a LoRA with the shapes `a` and `b` adapts; None for any other module's LoRA,
    and for one that fits no parameter.

    PEFT wraps a module of experts once for each of its parameters, and names the LoRAs by the wrappers:
    "experts.lora_A" and "experts.base_layer.lora_A".
    """
    experts = module
    while experts.endswith(".base_layer"):
        experts = experts.removesuffix(".base_layer")
    candidates = {name: shapes[name] for name in expert_parameters(shapes) if name.rpartition(".")[0] == experts}
    for sizes in ([b[0], a[-1]], [a[-1], b[0]]):
        for name, (number, *of_each) in candidates.items():
            if of_each == sizes and a[0] % number == 0:
                return name
    return None
