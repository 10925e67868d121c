"""The one judge of every arm's adapter: `python -m benchmarks.trainer.evaluate MODEL HELD_OUT ADAPTER ...`

Plain transformers and PEFT, a document at a time, in fp32 (on a GPU its products are in TF32), with nothing of the
trainer. Prints a line of JSON: the mean loss over the held-out supervised tokens, of the base and then of each adapter.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar


def main(model: str, held_out: Path, adapters: list[str]) -> None:
    disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    documents = [json.loads(line) for line in held_out.read_text().splitlines()]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, device_map={"": device}).eval()
    losses = [mean_loss(base, documents)]
    for adapter in adapters:
        adapted = PeftModel.from_pretrained(base, adapter).float()
        losses.append(mean_loss(adapted, documents))
        base = adapted.unload()
    print(json.dumps(losses))


@torch.no_grad()
def mean_loss(model: Any, documents: list[dict[str, list[int]]]) -> float:
    """In nats."""
    total, count = 0.0, 0
    for document in documents:
        logits = model(input_ids=torch.tensor([document["input_ids"]], device=model.device)).logits[0, :-1]
        labels = torch.tensor(document["labels"][1:], device=model.device)
        total += F.cross_entropy(logits.float(), labels, reduction="sum").item()
        count += int((labels >= 0).sum())
    return total / count


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
