"""What every arm is given to do: a model, the same tokens in the same order, and the same steps."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from contract.order import permutation
from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.examples import load_data

ROOT = Path(__file__).parents[2]
SEED = 42
HELD_OUT = 16
"""Documents of the evaluation at the end."""
LONGEST_ROW = 1600
"""Characters of a row's JSON, for the half-padded work: a step is to take seconds on a few cores, not minutes."""


@dataclass(frozen=True)
class Shape:
    steps: int
    documents: int
    """Of one optimizer step, on all ranks."""
    micro_batch: int
    """Documents in one forward and backward pass on one rank."""
    ranks: int
    length: int
    """Tokens at which a document is cut."""
    precision: str
    """Of the base: bf16 or fp32. The adapter is in fp32."""
    learning_rate: float


@dataclass(frozen=True)
class Work:
    """As work.json in `folder`, which the arms read; documents.jsonl beside it has the documents in their order."""

    name: str
    folder: Path
    model: Path
    rows: Path
    """The rows that the documents come from, as our trainer takes them: in the file's order."""
    shape: Shape
    real: list[int]
    """Tokens of each step."""
    supervised: list[int]
    """Of these, the ones with a label."""
    squares: list[int]
    """The sum of n^2 over each step's documents of n tokens: what attention costs."""
    padding: float
    """Share of padding where each micro-batch is padded to its longest document."""

    @property
    def cache(self) -> Path:
        """Our trainer's tokenised datasets: it finds the work tokenised, as the others do."""
        return self.folder / "cache"

    @property
    def held_out(self) -> Path:
        return self.folder / "held-out.jsonl"


def recipe_of(model: Path, rows: Path, shape: Shape) -> dict[str, Any]:
    """Ours. AdamW with weight decay 0, a cosine without warm-up, clipping at 1: transformers' Trainer has the same
    schedule to the last digit."""
    return {
        "model": str(model),
        "dataset": str(rows),
        "adapter": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"},
        "batch": {
            "micro_batch_size": shape.micro_batch,
            "effective_batch_size": shape.documents,
            "max_length": shape.length,
        },
        "optimizer": {"learning_rate": shape.learning_rate, "weight_decay": 0.0, "max_grad_norm": 1.0},
        "schedule": {"type": "cosine", "epochs": 1, "warmup_steps": 0},
        "precision": shape.precision,
        "resources": {"gpus": shape.ranks},
        "seed": SEED,
    }


def prepare(name: str, folder: Path, model: Path, rows: Sequence[dict[str, Any]], shape: Shape) -> Work:
    """Writes what the arms read. The first of `rows` are trained on, the next ones are held out."""
    folder.mkdir(parents=True)
    count = shape.steps * shape.documents
    train, held_out = folder / "rows.jsonl", folder / "held-out-rows.jsonl"
    _write_lines(train, rows[:count])
    _write_lines(held_out, rows[count : count + HELD_OUT])
    documents = _tokenised(model, train, shape, folder / "cache")
    if len(documents) != count:
        raise SystemExit(f"{name}: {count} rows to train on became {len(documents)} documents; give other examples")
    ordered = [documents[row] for row in permutation(SEED, 0, count)]
    _write_lines(folder / "documents.jsonl", map(_labelled, ordered))
    evaluation = _tokenised(model, held_out, shape, folder / "cache")
    _write_lines(folder / "held-out.jsonl", map(_labelled, evaluation))
    steps = [ordered[start : start + shape.documents] for start in range(0, count, shape.documents)]
    work = Work(
        name=name,
        folder=folder,
        model=model,
        rows=train,
        shape=shape,
        real=[sum(len(each.input_ids) for each in step) for step in steps],
        supervised=[sum(each.targets for each in step) for step in steps],
        squares=[sum(len(each.input_ids) ** 2 for each in step) for step in steps],
        padding=padding_share([len(each.input_ids) for each in ordered], shape),
    )
    work_order = asdict(shape) | {"model": str(model), "recipe": recipe_of(model, train, shape), "seed": SEED}
    (folder / "work.json").write_text(json.dumps(work_order, indent=2))
    return work


def padding_share(lengths: Sequence[int], shape: Shape) -> float:
    """Where micro-batches are taken as torch's DataLoader takes them on so many ranks: one after another."""
    size = shape.micro_batch
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def half_padded_rows(examples: Path | None) -> list[dict[str, Any]]:
    """Prompts with answers, of every length. From a file of examples, the longest left out; else our own examples,
    which are short and much alike, joined into conversations of one to nine turns."""
    if examples is not None:
        text = examples.read_text()
        given = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        rows = [row for row in given if len(json.dumps(row)) <= LONGEST_ROW]
        random.Random(SEED).shuffle(rows)
        return rows
    lines = (ROOT / "examples" / "data" / "quickstart.jsonl").read_text().splitlines()
    turns = cycle([json.loads(line)["messages"] for line in lines])
    counts = list(islice(cycle((1, 9, 2, 3, 1, 7, 4, 5)), 1024))
    random.Random(SEED).shuffle(counts)
    return [{"messages": [said for _ in range(count) for said in next(turns)]} for count in counts]


def full_length_rows(length: int, count: int) -> list[dict[str, Any]]:
    """Text of at least `length` tokens each, all of it learned: the project's own documents, over and over."""
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    # A token of English has four characters or so, of a table fewer.
    size = 8 * length
    text *= 1 + size * count // len(text)
    return [{"text": text[start : start + size]} for start in range(0, size * count, size)]


def threads(ranks: int) -> int:
    """Of each rank: the cores that this process may use are divided among them."""
    return max(1, len(os.sched_getaffinity(0)) // ranks)


def _tokenised(model: Path, rows: Path, shape: Shape, cache: Path) -> list[Document]:
    """In the file's order, by our trainer's own code."""
    train = load_data(Recipe.model_validate(recipe_of(model, rows, shape)), cache).train
    return [document for item in train for document in item.documents]


def _labelled(document: Document) -> dict[str, list[int]]:
    """In the form of transformers: a label for each token, which the model shifts itself."""
    ids = document.input_ids
    labels = [token if learned else -100 for token, learned in zip(ids, document.supervised, strict=True)]
    return {"input_ids": ids, "labels": labels}


def _write_lines(path: Path, rows: Iterator[Any] | Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
