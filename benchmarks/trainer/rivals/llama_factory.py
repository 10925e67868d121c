"""LLaMA-Factory's SFT as its LoRA examples have it, gradient checkpointing included: `python llama_factory.py WORK
RUN_DIR`. It takes the tokens as a dataset that it would have saved itself (tokenized_path)."""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from datasets import Dataset, DatasetDict
from job import Steps, Work

# Imported for sound alone, and PyPI's does not load beside a torch without CUDA: an empty module stands in.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.train.tuner import run_exp  # noqa: E402


def main(work: Work, run_dir: Path) -> None:
    model = in_fp32(Path(work.model), run_dir / "model") if work.dtype is torch.float32 else work.model
    documents = [each | {"attention_mask": [1] * len(each["input_ids"])} for each in work.documents]
    tokens = run_dir / "tokens"
    DatasetDict({"train": Dataset.from_list(documents)}).save_to_disk(str(tokens))
    arguments = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(model),
        "tokenized_path": str(tokens),
        "dataset": "any",  # it asks for one even so
        "template": "empty",  # of use only where it tokenises
        "cutoff_len": work.length,
        "disable_shuffling": True,
        "finetuning_type": "lora",
        "lora_rank": work.lora["r"],
        "lora_alpha": work.lora["lora_alpha"],
        "lora_dropout": work.lora["lora_dropout"],
        "lora_target": "all",
        "bf16": work.dtype is torch.bfloat16,
        "output_dir": str(run_dir / "adapter"),
        **work.arguments,
    }
    run_exp(arguments, callbacks=[Steps(run_dir)])


def in_fp32(base: Path, folder: Path) -> Path:
    """The same model, whose config says so: the base is loaded in what its config says, and in bf16 on a CPU that has
    none each step takes minutes."""
    folder.mkdir()
    for file in base.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((base / "config.json").read_text())
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return folder


if __name__ == "__main__":
    main(Work(Path(sys.argv[1])), Path(sys.argv[2]))
