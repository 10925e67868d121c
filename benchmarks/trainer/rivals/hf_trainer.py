"""transformers' Trainer on a PEFT model, as their documents have it: `python hf_trainer.py WORK RUN_DIR`."""

import sys
from pathlib import Path

import torch
from job import Steps, Work
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main(work: Work, run_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=work.dtype)
    set_seed(work.seed)
    model = get_peft_model(model, LoraConfig(**work.lora))
    arguments = TrainingArguments(
        output_dir=str(run_dir / "out"),
        bf16=work.dtype is torch.bfloat16,
        train_sampling_strategy="sequential",
        **work.arguments,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=work.documents,
        data_collator=DataCollatorForSeq2Seq(tokenizer),  # pads labels with -100
        callbacks=[Steps(run_dir)],
    )
    trainer.train()
    trainer.save_model(str(run_dir / "adapter"))


if __name__ == "__main__":
    main(Work(Path(sys.argv[1])), Path(sys.argv[2]))
