"""Makes what a job's report is of: its metrics as a table, its losses as a picture, and a card that says what it is."""

import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from contract.quote import cut
from store.artifacts import REPORT
from store.jobs.report import Report


def write(kind: str, report: Report, base: str, path: Path) -> None:
    """The file of one kind of store.artifacts.REPORT; `base` is what the adapter's configuration calls its model."""
    if kind == "card":
        path.write_text(card(report, base))
    else:
        {"metrics": _write_metrics, "curve": _draw}[kind](report, path)


def _write_metrics(report: Report, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(report.columns)
        writer.writerows(report.metrics)


def _draw(report: Report, path: Path) -> None:
    """Not by pyplot, which keeps every figure for the whole process."""
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = [row.step for row in report.metrics]
    axes.plot(steps, [row.loss for row in report.metrics], color="#4477aa", alpha=0.35, linewidth=1, label="each step")
    axes.plot(steps, _smooth([row.loss for row in report.metrics]), color="#4477aa", linewidth=2, label="smoothed")
    if report.evaluations:
        axes.plot(*zip(*report.evaluations, strict=True), "o-", color="#cc6633", linewidth=1.5, label="evaluation")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    name = _line(report.job.name or report.job.id)
    # What matplotlib's own font can write.
    known = name.isprintable() and all(ord(character) < 0x250 for character in name)
    axes.set_title(cut(name, 60) if known else report.job.id, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _smooth(losses: list[float]) -> list[float]:
    """Mean of each with those before it, the older the less; a fortieth of the run back it counts a third."""
    keep = 1 - 1 / max(1.0, len(losses) / 40)
    smoothed = []
    total = weight = 0.0
    for loss in losses:
        total, weight = keep * total + loss, keep * weight + 1
        smoothed.append(total / weight)
    return smoothed


def card(report: Report, base: str) -> str:
    """A model card as the Hugging Face hub reads it: Markdown under a header of YAML, of which JSON is a part."""
    recipe = _without_folders(report.job.recipe) | {"model": base}
    dataset = recipe["dataset"]
    # A named chat template lies beside the adapter.
    tokenizer = "adapter" if dataset.get("chat_template") else base
    end = "" if report.done.get("completed") else f" It was not trained to its end: {_steps(report)}."
    sections = [
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\ntags:\n- lora\n- finetuned\n---",
        f"# {cut(_line(report.job.name or report.job.id), 100)}",
        f"A LoRA adapter for `{_line(base)}`, trained by finetuned as job `{report.job.id}`.{end}",
        "## Use\n\n```python\nfrom peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base)})\n"
        'model = PeftModel.from_pretrained(base, "adapter")  # the folder that this file is in\n'
        f"tokenizer = PreTrainedTokenizerFast.from_pretrained({json.dumps(tokenizer)})\n```",
        f"## Results\n\n![The loss by step]({REPORT['curve']})\n\n{_table(_results(report))}",
        f"## Data\n\n{_table(_data(report, dataset))}",
        f"## Recipe\n\n```json\n{json.dumps(recipe, indent=2)}\n```",
    ]
    if report.started:
        sections.append(f"## Made with\n\n{_table(_made_with(report.started))}")
    return "\n\n".join(sections) + "\n"


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """With the names of its files alone: the card is for others, who need not know the server's folders."""
    named = dict(recipe)
    named["dataset"] = _with_name(recipe["dataset"])
    evaluation = recipe.get("evaluation") or {}
    if evaluation.get("dataset"):
        named["evaluation"] = evaluation | {"dataset": _with_name(evaluation["dataset"])}
    return named


def _with_name(dataset: dict[str, Any]) -> dict[str, Any]:
    return dataset | {"path": Path(str(dataset["path"])).name}


def _results(report: Report) -> dict[str, Any]:
    last = report.metrics[-1]
    told: dict[str, Any] = {"steps": _steps(report), "epochs": f"{last.epoch:.2f}", "last loss": f"{last.loss:.4f}"}
    if report.done.get("train_loss") is not None:
        told["mean loss"] = f"{report.done['train_loss']:.4f}"
    if report.evaluations:
        step, loss = min(report.evaluations, key=lambda each: each[1])
        told["evaluation loss"] = f"{report.evaluations[-1][1]:.4f}"
        told["lowest evaluation loss"] = f"{loss:.4f}, after step {step}"
    return told | {"tokens": f"{sum(row.tokens for row in report.metrics):,}"}


def _steps(report: Report) -> str:
    last, total = report.metrics[-1].step, report.job.total_steps
    return f"{last} of {total}" if total else str(last)


def _data(report: Report, dataset: dict[str, Any]) -> dict[str, Any]:
    told = {"file": f"`{_line(dataset['path'])}`", "SHA-256": f"`{dataset['sha256']}`"}
    if report.started:
        told["examples to train on"] = report.started["train_examples"]
        told["examples to evaluate on"] = report.started["eval_examples"]
    return told


def _made_with(started: dict[str, Any]) -> dict[str, Any]:
    told = {name: started[name] for name in ("device", "world_size", "engine", "precision", "effective_batch_size")}
    counts = {name: f"{started[name]:,}" for name in ("trainable_parameters", "total_parameters")}
    return {name.replace("_", " "): value for name, value in (told | counts).items()} | started["versions"]


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _line(text: str) -> str:
    return " ".join(text.split())
