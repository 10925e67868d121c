"""The weights of a quantised model's files as if they were not quantised, each read when it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from contract.model.folder import WeightHeaders, read_weight_headers
from contract.model.quantisation import Quantisation
from contract.model.stored_weights import StoredWeight
from trainer.model.dequantise import blocks, scaled, words

_READ: dict[str, Callable[[dict[str, torch.Tensor], StoredWeight, Quantisation], torch.Tensor]] = {
    "awq": words.read_awq,
    "gptq": words.read_gptq,
    "int8": blocks.read_int8,
    "mxfp4": blocks.read_mxfp4,
    "nf4": blocks.read_nf4,
    "packed": words.read_compressed,
    "scaled": scaled.read,
}


@dataclass(frozen=True)
class DequantisedSlice:
    """What transformers takes for a slice of a safetensors file: `[...]` reads all of it, in fp32."""

    parts: dict[str, Any]
    """Slices of the files."""
    stored: StoredWeight
    quantisation: Quantisation

    def __getitem__(self, _: Any) -> torch.Tensor:
        parts = {name: part[...] for name, part in self.parts.items()}
        return _READ[self.stored.kind](parts, self.stored, self.quantisation)

    def get_shape(self) -> list[int]:
        return self.stored.shape


def dequantised_weights(folder: Path) -> dict[str, Any]:
    """Slices by the names that the files have without quantisation. Raises InputError for files that cannot be
    read."""
    headers = read_weight_headers(folder)
    slices = _slices(headers)
    quantisation = headers.quantisation
    assert quantisation is not None
    plain = {name: slices[name] for name in headers.plain}
    return plain | {
        name: DequantisedSlice({part: slices[each] for part, each in stored.parts.items()}, stored, quantisation)
        for name, stored in headers.stored.items()
    }


def _slices(headers: WeightHeaders) -> dict[str, Any]:
    # The slices keep the files open.
    files: dict[Path, Any] = {
        file: safe_open(file, framework="pt") for file in {each.file for each in headers.tensors.values()}
    }
    return {name: files[tensor.file].get_slice(name) for name, tensor in headers.tensors.items()}
