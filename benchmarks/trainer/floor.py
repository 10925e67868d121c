"""The packed forward and backward pass alone: `python -m benchmarks.trainer.floor WORK RUN_DIR`.

No LoRA, no optimizer. Every weight is frozen; the embeddings' output asks for a gradient, so that the backward pass
goes through every layer down to the first one, as it does for an adapter in each: what it computes is the gradient of
every activation and of no weight. No LoRA on all layers can be faster than that with the same packing, attention and
head.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from dataset.document import Document
from trainer.data.packing import pack
from trainer.device import this_device
from trainer.model.kernels import use_kernels
from trainer.model.row_path import RowPath
from trainer.model.trained_model import TrainedModel
from trainer.precision import DTYPES


class Bare:
    """A model in the place of one with an adapter."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def get_base_model(self) -> Any:
        return self.base


def main(work: Path, run_dir: Path) -> None:
    work_order = json.loads((work / "work.json").read_text())
    device = this_device()
    base = AutoModelForCausalLM.from_pretrained(work_order["model"], dtype=DTYPES[work_order["precision"]]).to(device)
    if device.type == "cuda":
        use_kernels(base)
    base.requires_grad_(False)
    base.enable_input_require_grads()
    loss = TrainedModel(Bare(base), RowPath(packed=True, plain_head=True))
    base.train()
    documents = [_document(json.loads(line)) for line in (work / "documents.jsonl").read_text().splitlines()]
    for step in range(work_order["steps"]):
        began = time.time()
        window = documents[step * work_order["documents"] : (step + 1) * work_order["documents"]]
        for start in range(0, len(window), work_order["micro_batch"]):
            batch = pack(window[start : start + work_order["micro_batch"]]).to(device)
            (loss(batch)[0] / sum(document.targets for document in window)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.time()
        with (run_dir / "steps.jsonl").open("a") as file:
            file.write(json.dumps({"step": step + 1, "time": now, "seconds": now - began}) + "\n")
    used = {"base": work_order["precision"], "adapter": "none", "autocast": "off", "checkpointing": False}
    if device.type == "cuda":
        used["cuda_allocated"], used["cuda_reserved"] = (
            torch.cuda.max_memory_allocated(),
            torch.cuda.max_memory_reserved(),
        )
    (run_dir / "used.json").write_text(json.dumps(used | {"threads": torch.get_num_threads()}))


def _document(labelled: dict[str, list[int]]) -> Document:
    return Document(labelled["input_ids"], [label >= 0 for label in labelled["labels"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
