"""Figures that follow from a run and its work."""

import json
from typing import Any

from benchmarks.trainer import flops
from benchmarks.trainer.run import Run
from benchmarks.trainer.work import Work, recipe_of
from contract.model.folder import loaded_base, weight_shapes
from contract.recipe import Recipe
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.memory import estimate_memory
from estimate.plan import adapted_base
from trainer.device import this_device


def planned_bytes(work: Work, recipe: Recipe) -> int | None:
    """The plan's memory for one rank; None for an architecture that has no estimate."""
    base = adapted_base(loaded_base(work.model), recipe.adapter, None)
    if base.architecture is None:
        return None
    model = SizedModel(base.shapes, base.config, base.architecture, base.trained)
    on_gpu = this_device().type == "cuda"
    memory = estimate_memory(
        recipe, model, _largest_row(work), DeviceKind(on_gpu, recipe.precision, None), work.shape.ranks
    )
    # The context is no allocation of torch's.
    return memory.total - memory.overhead if on_gpu else memory.total


def _largest_row(work: Work) -> PackedRow:
    lines = (work.folder / "documents.jsonl").read_text().splitlines()
    labels = [json.loads(line)["labels"] for line in lines]
    size = work.shape.micro_batch
    rows = [labels[start : start + size] for start in range(0, len(labels), size)]
    largest = max(rows, key=lambda row: sum(map(len, row)))
    supervised = sum(label >= 0 for document in largest for label in document)
    return PackedRow(sum(map(len, largest)), len(largest), supervised)


def operations_per_second(work: Work, run: Run) -> float | None:
    if run.real_rate is None:
        return None
    config: dict[str, Any] = json.loads((work.model / "config.json").read_text())
    heads = config["num_attention_heads"]
    width = heads * config.get("head_dim", config["hidden_size"] // heads)
    experts = config.get("num_experts") or config.get("num_local_experts")
    size = flops.size_of(
        weight_shapes(work.model),
        config["num_hidden_layers"],
        width,
        recipe_of(work.model, work.rows, work.shape)["adapter"]["r"],
        config["num_experts_per_tok"] / experts if experts else 1.0,
    )
    tokens = sum(work.real)
    per_token = flops.operations(size, tokens, sum(work.supervised), sum(work.squares)) / tokens
    return run.real_rate * per_token / work.shape.ranks
