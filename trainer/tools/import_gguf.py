"""Makes a folder that the trainer loads out of one GGUF file: `python -m trainer.tools.import_gguf FILE.gguf OUT_DIR`.

The weights are dequantised to bfloat16. The folder is written beside and renamed, so it is whole or absent; one that
is there already is left as it is.
"""

import argparse
import functools
import shutil
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

from trainer.durable import commit_folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a GGUF file to a folder of safetensors in bfloat16.")
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.stderr.write(f"{arguments.out} is there already\n")
    else:
        import_gguf(arguments.gguf, arguments.out)


def import_gguf(file: Path, out: Path) -> None:
    """Writes config, generation config, tokenizer, chat template and model.safetensors to the folder `out`."""
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
    # The file's own name for the model says nothing about where it is, which is what this field is for.
    model.config._name_or_path = ""

    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    (beside / "model.safetensors").chmod(0o644)
    commit_folder(beside, out)


def _read_the_file_once() -> None:
    """Transformers parses the header for config, tokenizer and weights anew, and makes the same map of tensor names for
    every module of the model; that is most of the time of a small model's import."""
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)


if __name__ == "__main__":
    main()
