"""TRL's DPOTrainer, ORPOTrainer or KTOTrainer: `python trl_preferences.py WORK RUN_DIR [tuned]`.

As they come they have gradient checkpointing, and the reference answers again in each step; tuned they have neither. A
recipe with adapter.start_from continues that adapter, which is then the reference too.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

TRAINERS = {"dpo": (DPOConfig, DPOTrainer), "orpo": (ORPOConfig, ORPOTrainer), "kto": (KTOConfig, KTOTrainer)}
WITHOUT_REFERENCE = {"gradient_checkpointing": False}
TUNED = {
    "dpo": {**WITHOUT_REFERENCE, "precompute_ref_log_probs": True},
    "orpo": WITHOUT_REFERENCE,
    "kto": {**WITHOUT_REFERENCE, "precompute_ref_log_probs": True},
}


class Reported(TrainerCallback):
    """Writes each step's time, loss and gradient norm."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            with self._file.open("a") as file:
                step = {"time": time.time(), "loss": logs["loss"], "grad_norm": logs["grad_norm"]}
                file.write(json.dumps(step) + "\n")


def main(work: dict[str, Any], run_dir: Path, tuned: bool) -> None:
    recipe = work["recipe"]
    method = recipe["method"]["type"]
    Config, Trainer = TRAINERS[method]
    rows = [json.loads(line) for line in Path(recipe["dataset"]).read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    arguments = Config(
        output_dir=str(run_dir / "out"),
        per_device_train_batch_size=recipe["batch"]["micro_batch_size"],
        gradient_accumulation_steps=recipe["batch"]["gradient_accumulation_steps"],
        num_train_epochs=recipe["schedule"]["epochs"],
        max_length=recipe["batch"]["max_length"],
        learning_rate=recipe["optimizer"]["learning_rate"],
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        beta=recipe["method"]["beta"],
        bf16=False,
        optim="adamw_torch_fused",
        seed=1,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        **({"loss_type": recipe["method"].get("loss", "sigmoid")} if method == "dpo" else {}),
        **(TUNED[method] if tuned else {}),
    )
    set_seed(1)
    trainer = Trainer(
        model=load(recipe),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=None if "start_from" in recipe["adapter"] else new_adapter(recipe["adapter"]),
        callbacks=[Reported(run_dir / "steps.jsonl")],
    )
    (run_dir / "began").write_text(str(time.time()))
    trainer.train()


def load(recipe: dict[str, Any]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(recipe["model"], dtype=torch.float32)
    earlier = recipe["adapter"].get("start_from")
    return PeftModel.from_pretrained(model, earlier, is_trainable=True) if earlier else model


def new_adapter(adapter: dict[str, Any]) -> LoraConfig:
    return LoraConfig(r=adapter["r"], lora_alpha=adapter["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3:] == ["tuned"])
