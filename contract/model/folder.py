"""Reads the names and shapes of a base model's weights from its safetensors headers: no torch, no weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.model.config import already_quantised, read_model_config, unsupported
from contract.model.loaded_names import Shapes, loaded_shapes, model_type
from contract.model.tensor_header import Tensor, read_tensors
from contract.model.weight_files import weight_files
from contract.quote import cut

_TRAINABLE = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class LoadedBase:
    shapes: Shapes
    """By the names of the loaded model."""
    config: dict[str, Any]
    """Its config.json."""

    @property
    def kind(self) -> str:
        """Its model_type."""
        return model_type(self.config)


def loaded_base(folder: Path) -> LoadedBase:
    """Raises InputError for files that cannot be loaded."""
    config = read_model_config(folder)
    return LoadedBase(loaded_shapes(weight_shapes(folder), config), config)


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight that transformers loads, by its name.

    Raises InputError for a folder that cannot be loaded, as far as its configuration and headers tell: a torn or
    missing file, a model that is quantised already.
    """
    shapes: dict[str, list[int]] = {}
    for file, expected in weight_files(folder, read_model_config(folder)).items():
        tensors = _tensors(file)
        for name, tensor in tensors.items():
            if name.endswith(".weight") and len(tensor.shape) > 1 and tensor.dtype not in _TRAINABLE:
                raise already_quantised(f"{cut(file.name)} has {cut(name)} in {cut(tensor.dtype)}")
        lost = next((name for name in expected or () if name not in tensors), None)
        if lost is not None:
            problem = f"{cut(lost)} is not in {cut(file.name)}, where the index has it; copy or download both again"
            raise unsupported(problem)
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
    return shapes


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    # RecursionError: a header of nothing but brackets.
    except (ValueError, RecursionError, PermissionError) as error:
        problem = f"{cut(file.name)} is not a whole safetensors file: {cut(str(error), 200)}; copy or download it again"
        raise unsupported(problem) from error


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Of one safetensors file. Raises ValueError, RecursionError, OSError where it is none."""
    return {name: tensor.shape for name, tensor in read_tensors(path).items()}
