"""TRL's SFTTrainer: `python trl_sft.py WORK RUN_DIR [tuned|liger]`.

As it comes it has gradient checkpointing and padded batches; tuned it has neither; with Liger it is tuned and has
Liger's kernels too, which are for GPUs.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from job import Steps, Work
from peft import LoraConfig
from transformers import AutoModelForCausalLM, set_seed
from trl import SFTConfig, SFTTrainer

TUNED = {"padding_free": True, "gradient_checkpointing": False, "max_length": None}
"""It wants no max_length beside padding_free: no document is longer."""
KINDS = {"": {}, "tuned": TUNED, "liger": {**TUNED, "use_liger_kernel": True}}


def main(work: Work, run_dir: Path, kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=work.dtype)
    arguments = SFTConfig(
        output_dir=str(run_dir / "out"),
        train_sampling_strategy="sequential",
        bf16=work.dtype is torch.bfloat16,  # its default; on a CPU that has none each product takes ten times as long
        **work.arguments,
        **({"max_length": work.length} | KINDS[kind]),
    )
    set_seed(work.seed)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(work.documents),
        peft_config=LoraConfig(**work.lora),
        callbacks=[Steps(run_dir)],
    )
    trainer.train()
    trainer.save_model(str(run_dir / "adapter"))


if __name__ == "__main__":
    main(Work(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3] if sys.argv[3:] else "")
