"""Converts a GGUF file to a folder that the trainer loads: `python -m trainer.tools.import_gguf FILE.gguf OUT_DIR`.

The weights are dequantised to bfloat16. The folder is complete or absent; an existing one is left unchanged.
"""

import argparse
import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.durable import commit_folder
from trainer.environment import prepare_process


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(description="Convert a GGUF file to a folder of safetensors in bfloat16.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.stderr.write(f"{arguments.out} already exists\n")
    else:
        import_gguf(arguments.gguf, arguments.out)


def import_gguf(file: Path, out: Path) -> None:
    """Writes config, generation config, tokenizer, chat template and model.safetensors to the folder `out`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    _read_the_file_once()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    tokenizer.model_max_length = model.config.max_position_embeddings
    # The name is a path, and the one in the file is not.
    model.config._name_or_path = ""

    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    (beside / "model.safetensors").chmod(0o644)
    commit_folder(beside, out)


def _read_the_file_once() -> None:
    """transformers parses the header three times (config, tokenizer, weights) and builds the same map of tensor names
    for every module, which takes most of a small model's import."""
    import gguf

    gguf.GGUFReader = functools.cache(functools.partial(_plain_reader, gguf.GGUFReader))
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)


def _plain_reader(reader: Callable[..., Any], *given: Any) -> Any:
    """Its arrays are plain ones over the mapped file: a numpy.memmap runs Python code for each of millions of items."""
    import numpy

    memmap = numpy.memmap
    numpy.memmap = lambda *file, **mode: numpy.asarray(memmap(*file, **mode))  # type: ignore[assignment, misc]
    try:
        return reader(*given)
    finally:
        numpy.memmap = memmap  # type: ignore[misc]


if __name__ == "__main__":
    main()
