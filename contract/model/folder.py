"""Reads the names and shapes of a base model's weights from its safetensors headers, without torch and without reading
weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.formatting import truncate
from contract.model.config import already_quantised, read_model_config, unsupported
from contract.model.config_match import check_matches_config
from contract.model.loaded_names import Shapes, loaded_shapes, model_type
from contract.model.model_types import check_model_type
from contract.model.tensor_header import TensorHeader, read_header
from contract.model.weight_files import weight_files

_TRAINABLE = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class LoadedBase:
    shapes: Shapes
    """Shapes by the names of the loaded model."""
    config: dict[str, Any]
    """The model's config.json."""

    @property
    def kind(self) -> str:
        """The model's model_type."""
        return model_type(self.config)


def loaded_base(folder: Path) -> LoadedBase:
    """Raises InputError for files that cannot be loaded."""
    config = read_model_config(folder)
    check_model_type(config)
    shapes = loaded_shapes(weight_shapes(folder), config)
    check_matches_config(shapes, config)
    return LoadedBase(shapes, config)


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight that transformers loads, by its name.

    Raises InputError for a folder that cannot be loaded, as far as its configuration and headers show: a damaged or
    missing file, or a model that is already quantised.
    """
    shapes: dict[str, list[int]] = {}
    for file, expected in weight_files(folder, read_model_config(folder)).items():
        tensors = _tensors(file)
        for name, tensor in tensors.items():
            if name.endswith(".weight") and len(tensor.shape) > 1 and tensor.dtype not in _TRAINABLE:
                raise already_quantised(f"{truncate(file.name)} has {truncate(name)} in {truncate(tensor.dtype)}")
        lost = next((name for name in expected or () if name not in tensors), None)
        if lost is not None:
            problem = (
                f"{truncate(lost)} is not in {truncate(file.name)}, where the index has it; copy or download both again"
            )
            raise unsupported(problem)
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
    return shapes


def _tensors(file: Path) -> dict[str, TensorHeader]:
    try:
        return read_header(file)
    # RecursionError: a header of nothing but brackets.
    except (ValueError, RecursionError, PermissionError) as error:
        problem = (
            f"{truncate(file.name)} is not a whole safetensors file: {truncate(str(error), 200)}; copy or download it "
            "again"
        )
        raise unsupported(problem) from error


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes in one safetensors file. Raises ValueError, RecursionError or OSError if it is not one."""
    return {name: tensor.shape for name, tensor in read_header(path).items()}
