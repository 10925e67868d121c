"""An adapter in portable form as a GGUF file for llama.cpp, and for what is built on it."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy

from contract.export import ExportSpec
from contract.model.loaded_names import text_config
from contract.model.portable_adapter import GGUF_ARCHITECTURES, check_gguf_type, not_portable
from contract.recipe import Recipe
from trainer.data.tokenizer import load_tokenizer
from trainer.durable import atomic_folder
from trainer.tools.portable import PortableAdapter, read_portable, save_text_files

FILE = "adapter.gguf"


def save_gguf(recipe: Recipe, folder: Path, spec: ExportSpec) -> None:
    """Writes the recipe's adapter as GGUF to a new folder, with Ollama's Modelfile, the tokenizer and the end tokens of
    training. Raises InputError for an adapter or a base that llama.cpp has in no such form."""
    adapter = read_portable(recipe, spec.init)
    check_gguf_type(adapter.base.kind)
    with atomic_folder(folder) as beside:
        save_text_files(recipe, beside)
        write_gguf(adapter, spec.base, beside / FILE)
        ends = json.loads((beside / "generation_config.json").read_bytes()).get("eos_token_id") or []
        base = f"# The base model {' '.join(spec.base.split())} as GGUF; or its name in Ollama's library."
        lines = [base, "FROM ./base.gguf", f"ADAPTER ./{FILE}"]
        (beside / "Modelfile").write_text(modelfile(recipe, lines, [ends] if isinstance(ends, int) else ends))


def write_gguf(adapter: PortableAdapter, name: str, file: Path) -> None:
    """Raises InputError for a module that llama.cpp does not have."""
    architecture = GGUF_ARCHITECTURES[adapter.base.kind]
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.rank))
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, name)
    names = tensor_names(architecture, adapter.base.config)
    for module, (a, b) in adapter.modules.items():
        tensor = names.get_name(module)
        if tensor is None or (tensor == "output" and f"{module}.weight" not in adapter.base.shapes):
            raise not_portable(f"llama.cpp has no {module} in a {architecture}")
        writer.add_tensor(f"{tensor}.weight.lora_a", a.numpy())
        writer.add_tensor(f"{tensor}.weight.lora_b", reorder_rows(module, b.numpy(), adapter.base.config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_names(architecture: str, config: dict[str, Any]) -> gguf.TensorNameMap:
    """llama.cpp's names by transformers' names."""
    number = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, (config | text_config(config))["num_hidden_layers"])


def reorder_rows(module: str, weight: numpy.ndarray[Any, Any], config: dict[str, Any]) -> numpy.ndarray[Any, Any]:
    """The rows of a weight, of a bias, or of B, in llama.cpp's order.

    For a llama, q and k turn pairs of neighbouring rows of a head (ggml's "normal" RoPE), where transformers turns the
    row i with the row i + half. In all other architectures here the order is the same.
    """
    last = module.rpartition(".")[2]
    if GGUF_ARCHITECTURES[config["model_type"]] != "llama" or last not in ("q_proj", "k_proj"):
        return weight
    heads = config["num_attention_heads"]
    if last == "k_proj":
        heads = config.get("num_key_value_heads") or heads
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def modelfile(recipe: Recipe, lines: list[str], ends: list[int]) -> str:
    """Ollama's description of a model, whose answers end at the tokens `ends`: https://docs.ollama.com/modelfile."""
    words = {token: text for text, token in load_tokenizer(recipe).get_vocab().items()}
    stops = [f"PARAMETER stop {json.dumps(words[end], ensure_ascii=False)}" for end in ends if end in words]
    return "\n".join([*lines, *stops, ""])
