"""Estimates beside what the trainer took: `python -m benchmarks.plans [MODEL ...]`.

Each MODEL is a folder of any architecture that is counted; without one, random llamas of some sizes are made. Each
configuration is trained for three steps by a trainer of its own, and the last event's memory_bytes is taken: what was
allocated on a GPU, or resident on a CPU. Without a GPU a model is in fp32, whatever the recipe says: so "auto" does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.models import random_llama
from contract.events import MetricEvent, StartedEvent, parse_event
from contract.model.folder import loaded_base
from contract.recipe import Recipe
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.memory import estimate_memory
from estimate.plan import adapted_base

CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"batch": {"micro_batch_size": 4}},
    {"gradient_checkpointing": True, "batch": {"micro_batch_size": 4}},
    {"adapter": {"r": 64}},
    {"adapter": {"target_modules": ["q_proj", "v_proj"]}},
    {"adapter": {"modules_to_save": ["lm_head"]}},
    {"adapter": {"dropout": 0.1}, "batch": {"micro_batch_size": 4}},
    {"adapter": {"dora": True}, "batch": {"micro_batch_size": 4}},
]
LLAMAS = {"llama of 30 M": (8, 512, 1376), "llama of 110 M": (12, 768, 2048)}
SMALL_LLAMAS = {"llama of 3 M": (2, 128, 344)}
CHARACTERS = 300
"""Of a question and of an answer; a token each."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description="Compare estimates with training.")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--short", action="store_true", help="one small model in one configuration")
    options = parser.parse_args()
    configurations = CONFIGURATIONS[:1] if options.short else CONFIGURATIONS
    print(f"{'model':24} {'configuration':60} {'estimate':>9} {'measured':>9}  ratio")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = scratch / "rows.jsonl"
        rows.write_text("".join(json.dumps(_row()) + "\n" for _ in range(24)))
        for model in options.models or _random_models(scratch, SMALL_LLAMAS if options.short else LLAMAS):
            for number, change in enumerate(configurations):
                _compare(model, change, rows, scratch / f"{model.name}-{number}")


def _row() -> dict[str, Any]:
    said = [{"role": "user", "content": "?" * CHARACTERS}, {"role": "assistant", "content": "!" * CHARACTERS}]
    return {"messages": said}


def _random_models(scratch: Path, sizes: Mapping[str, tuple[int, int, int]]) -> Iterator[Path]:
    for name, size in sizes.items():
        yield random_llama(scratch / name, *size)


def _compare(folder: Path, change: dict[str, Any], rows: Path, run: Path) -> None:
    shape = {"batch": {"micro_batch_size": 1}, "schedule": {"max_steps": 3}, **change}
    recipe = Recipe.model_validate({"model": str(folder), "dataset": str(rows), **shape})
    run.mkdir()
    (run / "recipe.json").write_text(recipe.model_dump_json())
    subprocess.run([sys.executable, "-m", "trainer", str(run)], check=True, stdout=subprocess.DEVNULL)
    events = [parse_event(line) for line in (run / "events.jsonl").read_bytes().splitlines()]
    (started,) = (event for event in events if isinstance(event, StartedEvent))
    measured = max(event.memory_bytes for event in events if isinstance(event, MetricEvent))

    base = adapted_base(loaded_base(folder), recipe.adapter, None)
    assert base.architecture is not None, base.unknown_because
    model = SizedModel(base.shapes, base.config, base.architecture, base.trained)
    per_example = started.supervised_tokens / started.train_examples
    # Of a conversation in ChatML, by a tokenizer of bytes.
    length = 2 * CHARACTERS + 24
    row = PackedRow(
        length * started.micro_batch_size, started.micro_batch_size, round(per_example * started.micro_batch_size)
    )
    on_gpu = not started.device.startswith("CPU")
    reported = estimate_memory(recipe, model, row, DeviceKind(on_gpu, started.precision, None), 1)
    estimate = reported.total - (reported.overhead if on_gpu else 0)
    words = json.dumps(change)
    print(
        f"{folder.name:24} {words:60} {estimate / 2**20:7.0f} M {measured / 2**20:7.0f} M  {estimate / measured:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
