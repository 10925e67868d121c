"""What a job trains, by the names that people know, with its part of the base's weights: the same list in plans and in
a job's events."""

import math
from collections.abc import Mapping

from pydantic import BaseModel

from contract.model.loaded_names import Shapes


class TrainedModules(BaseModel):
    name: str
    """Last part of the modules' names."""
    modules: int
    """Number of modules, or of parameters of routed experts."""
    parameters: int
    """Number of trained parameters."""
    fraction: float
    """Fraction of the base's weights that these modules hold, from 0 to 1."""


def trained_modules(trained: Mapping[str, int], shapes: Shapes) -> list[TrainedModules]:
    """`trained` are the numbers of trained parameters by module, or by parameter of routed experts. `shapes` are the
    base's."""
    total = sum(map(math.prod, shapes.values()))
    kinds: dict[str, list[str]] = {}
    for module in trained:
        kinds.setdefault(module.rpartition(".")[2], []).append(module)
    return [
        TrainedModules(
            name=kind,
            modules=len(modules),
            parameters=sum(trained[module] for module in modules),
            fraction=sum(_weights(module, shapes) for module in modules) / total,
        )
        for kind, modules in sorted(kinds.items())
    ]


def _weights(module: str, shapes: Shapes) -> int:
    return math.prod(shapes.get(module) or shapes.get(f"{module}.weight") or [0])
