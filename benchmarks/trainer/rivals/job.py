"""What the rivals' scripts share: the work that they read, and what they write of it. Not part of what is compared."""

import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


class Work:
    def __init__(self, folder: Path) -> None:
        work_order = json.loads((folder / "work.json").read_text())
        recipe = work_order["recipe"]
        self.model: str = work_order["model"]
        self.seed: int = work_order["seed"]
        self.length: int = work_order["length"]
        self.dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[work_order["precision"]]
        self.lora = {
            "r": recipe["adapter"]["r"],
            "lora_alpha": recipe["adapter"]["alpha"],
            "lora_dropout": recipe["adapter"]["dropout"],
            "target_modules": recipe["adapter"]["target_modules"],
            "task_type": "CAUSAL_LM",
        }
        self.arguments: dict[str, Any] = {
            "per_device_train_batch_size": work_order["micro_batch"],
            "gradient_accumulation_steps": work_order["documents"] // (work_order["micro_batch"] * work_order["ranks"]),
            "max_steps": work_order["steps"],
            "learning_rate": recipe["optimizer"]["learning_rate"],
            "weight_decay": recipe["optimizer"]["weight_decay"],
            "max_grad_norm": recipe["optimizer"]["max_grad_norm"],
            "lr_scheduler_type": recipe["schedule"]["type"],
            "warmup_steps": recipe["schedule"]["warmup_steps"],
            "optim": "adamw_torch_fused",
            "seed": work_order["seed"],
            "use_cpu": not torch.cuda.is_available(),
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        lines = (folder / "documents.jsonl").read_text().splitlines()
        self.documents: list[dict[str, list[int]]] = [json.loads(line) for line in lines]


class Steps(TrainerCallback):
    """Writes when each optimizer step was done, into a file that events.jsonl of our trainer is compared with."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self._began = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "time": time.time()}
        if state.global_step == 1:
            line["seconds"] = line["time"] - self._began
        with (self._run_dir / "steps.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """What it really used."""
        if not state.is_world_process_zero:
            return
        on_gpu = torch.cuda.is_available()
        kinds: dict[str, set[str]] = {"base": set(), "adapter": set()}
        for parameter in model.parameters():
            kinds["adapter" if parameter.requires_grad else "base"].add(str(parameter.dtype).removeprefix("torch."))
        work_order = {
            "base": "+".join(sorted(kinds["base"])),
            "adapter": "+".join(sorted(kinds["adapter"])),
            "autocast": "bf16" if args.bf16 else "off",
            "checkpointing": bool(args.gradient_checkpointing),
            "threads": torch.get_num_threads(),
            "cuda_allocated": torch.cuda.max_memory_allocated() if on_gpu else None,
            "cuda_reserved": torch.cuda.max_memory_reserved() if on_gpu else None,
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
        }
        (self._run_dir / "used.json").write_text(json.dumps(work_order))
