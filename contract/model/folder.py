"""Reads the names and shapes of a base model's weights from its safetensors headers, without torch and without reading
weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from contract.formatting import truncate
from contract.model.config import read_model_config, unsupported
from contract.model.config_match import check_matches_config
from contract.model.loaded_names import Shapes, loaded_shapes, model_type
from contract.model.model_types import check_model_type
from contract.model.quantisation import Quantisation, cannot_read, find_quantisation
from contract.model.stacked_experts import is_routed_expert
from contract.model.stored_weights import StoredWeight, stored_weights, without_parts
from contract.model.tensor_header import TensorHeader, read_header
from contract.model.weight_files import weight_files

_TRAINABLE = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class LoadedBase:
    shapes: Shapes
    """Shapes by the names of the loaded model."""
    config: dict[str, Any]
    """The model's config.json."""
    quantisation: Quantisation | None = None
    """How the files are quantised."""
    stored_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes in the files of each weight that is quantised there, by the names of the loaded model."""
    trained_bits: Literal[4, 8] | None = None
    """As in WeightHeaders."""

    @property
    def kind(self) -> str:
        """The model's model_type."""
        return model_type(self.config)


def loaded_base(folder: Path) -> LoadedBase:
    """Raises InputError for files that cannot be loaded."""
    config = read_model_config(folder)
    check_model_type(config)
    files = read_weight_headers(folder)
    shapes = loaded_shapes(files.shapes, config)
    check_matches_config(shapes, config)
    sizes = {
        name: [sum(files.tensors[part].size for part in each.parts.values())] for name, each in files.stored.items()
    }
    stored_bytes = {name: size for name, (size,) in loaded_shapes(sizes, config).items()}
    return LoadedBase(shapes, config, files.quantisation, stored_bytes, files.trained_bits)


@dataclass(frozen=True)
class WeightHeaders:
    """What the headers of a model's files say."""

    tensors: dict[str, TensorHeader]
    """Tensors by their names in the files."""
    quantisation: Quantisation | None
    stored: dict[str, StoredWeight]
    """The quantised weights."""

    @property
    def trained_bits(self) -> Literal[4, 8] | None:
        """Bits of the base in training, if it is loaded as it is stored. Otherwise it is dequantised: nothing here
        computes gradients through it, or transformers stacks its experts, which it stores one by one."""
        if self.quantisation is None or any(map(is_routed_expert, self.stored)):
            return None
        return self.quantisation.trainable_bits if self.stored else None

    @property
    def plain(self) -> dict[str, TensorHeader]:
        """The other weights."""
        return self.tensors if self.quantisation is None else without_parts(self.tensors, self.stored.values())

    @property
    def shapes(self) -> Shapes:
        plain = {name: tensor.shape for name, tensor in self.plain.items()}
        return plain | {name: stored.shape for name, stored in self.stored.items()}


def read_weight_headers(folder: Path) -> WeightHeaders:
    """All tensors that transformers loads.

    Raises InputError for a folder that cannot be loaded, as far as its configuration and headers show: a damaged or
    missing file, or a model that is quantised in a way that is not read here.
    """
    config = read_model_config(folder)
    quantisation = find_quantisation(config)
    tensors: dict[str, TensorHeader] = {}
    for file, expected in weight_files(folder, config).items():
        found = _tensors(file)
        lost = next((name for name in expected or () if name not in found), None)
        if lost is not None:
            problem = (
                f"{truncate(lost)} is not in {truncate(file.name)}, where the index has it; copy or download both again"
            )
            raise unsupported(problem)
        tensors |= found
    headers = WeightHeaders(tensors, quantisation, stored_weights(tensors, quantisation) if quantisation else {})
    for name, tensor in headers.plain.items():
        if name.endswith(".weight") and len(tensor.shape) > 1 and tensor.dtype not in _TRAINABLE:
            raise cannot_read(f"{truncate(tensor.file.name)} has {truncate(name)} in {truncate(tensor.dtype)}")
    return headers


def weight_shapes(folder: Path) -> Shapes:
    """Shape of every weight by its name in the files, as it is when it is not quantised. Raises InputError as
    read_weight_headers does."""
    return read_weight_headers(folder).shapes


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
