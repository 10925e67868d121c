"""A merged model as a GGUF file for llama.cpp, and for what is built on it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from contract.export import ExportSpec
from contract.model.portable_adapter import GGUF_ARCHITECTURES, check_gguf_type, not_portable
from contract.recipe import Recipe
from trainer.data.end_tokens import end_token_ids
from trainer.durable import atomic_folder
from trainer.tools.gguf_adapter import modelfile, reorder_rows, tensor_names
from trainer.tools.gguf_sizes import add_sizes
from trainer.tools.gguf_vocabulary import add_vocabulary
from trainer.tools.merge import merged_model
from trainer.tools.portable import save_text_files

FILE = "model.gguf"
F32, F16, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
_NUMPY = {F32: numpy.float32, F16: numpy.float16, Q8_0: numpy.uint8}
_FILE_TYPES = {
    F32: gguf.LlamaFileType.ALL_F32,
    F16: gguf.LlamaFileType.MOSTLY_F16,
    Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
}


def save_merged_gguf(recipe: Recipe, folder: Path, spec: ExportSpec) -> None:
    """Writes the recipe's base with its adapter merged in as GGUF to a new folder, with Ollama's Modelfile. Raises
    InputError for an adapter that does not fit, and for a base or a tokenizer that llama.cpp does not have."""
    model = merged_model(recipe, spec.init)
    check_gguf_type(model.config.model_type)
    ends = end_token_ids(model.generation_config)
    with atomic_folder(folder) as beside:
        save_text_files(recipe, beside)
        write_gguf(model, beside, ends, beside / FILE, Q8_0 if spec.format == "merged-gguf-q8_0" else F16)
        (beside / "Modelfile").write_text(modelfile(recipe, [f"FROM ./{FILE}"], ends))


def write_gguf(model: Any, texts: Path, ends: list[int], file: Path, weights: gguf.GGMLQuantizationType) -> None:
    """Writes a causal model of transformers, with the tokenizer in the folder `texts`, one tensor after another. Raises
    InputError for what llama.cpp does not have."""
    config = model.config
    writer = gguf.GGUFWriter(file, GGUF_ARCHITECTURES[config.model_type])
    writer.add_file_type(_FILE_TYPES[weights])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    rotary = add_sizes(writer, config)
    add_vocabulary(writer, texts, config.vocab_size, ends)
    for name, shape in [(name, each.shape) for name, _, each in _parameters(model)] + [
        (name, each.shape) for name, each in rotary.items()
    ]:
        kind = _kind(shape, weights)
        stored = gguf.quant_shape_to_byte_shape(shape, kind) if kind == Q8_0 else tuple(shape)
        dtype = numpy.dtype(_NUMPY[kind])
        writer.add_tensor_info(name, stored, dtype, math.prod(stored) * dtype.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, name, parameter in _parameters(model):
        writer.write_tensor_data(_stored(name, _value(name, parameter, config), weights))
    for name, value in rotary.items():
        writer.write_tensor_data(_stored(name, value, weights))
    writer.close()


def _parameters(model: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """llama.cpp's name, transformers' name, and the tensor. One that is tied to another comes once."""
    config = model.config
    names = tensor_names(GGUF_ARCHITECTURES[config.model_type], config.to_dict())
    for name, parameter in model.named_parameters():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise not_portable(f"llama.cpp has no {name} in a {config.model_type}")
        yield found, name, parameter


def _value(name: str, parameter: torch.Tensor, config: Any) -> "numpy.ndarray[Any, Any]":
    value = reorder_rows(name.rpartition(".")[0], parameter.detach().float().numpy(), config.to_dict())
    # Gemma multiplies by 1 + weight.
    return value + 1 if config.model_type.startswith("gemma") and "norm" in name else value


def _kind(shape: Sequence[int], weights: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Of a tensor: vectors stay as they are, and Q8_0 has blocks of 32 weights of a row."""
    if len(shape) < 2:
        return F32
    return F16 if weights == Q8_0 and shape[-1] % 32 else weights


def _stored(name: str, value: "numpy.ndarray[Any, Any]", weights: gguf.GGMLQuantizationType) -> Any:
    kind = _kind(value.shape, weights)
    if kind == Q8_0:
        return gguf.quantize(value, kind)
    stored = numpy.ascontiguousarray(value, _NUMPY[kind])
    if not numpy.isfinite(stored).all():
        raise not_portable(f"{name} has weights beyond the range of 16 bits")
    return stored
