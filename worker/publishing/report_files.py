"""Writes the files of a job's report: its metrics as a table, its losses as a plot, and a model card."""

import csv
import json
from pathlib import Path
from typing import Any

from contract.formatting import truncate
from store.artifacts import REPORT
from store.jobs.job_report import JobReport
from worker.publishing import tensorboard


def write(kind: str, report: JobReport, base: str, path: Path) -> None:
    """Writes one kind of store.artifacts.REPORT. `base` is the model's name in the adapter's configuration."""
    if kind == "card":
        path.write_text(card(report, base))
    else:
        {"metrics": _write_metrics, "results": _write_results, "tensorboard": tensorboard.write, "curve": _draw}[kind](
            report, path
        )


def _write_metrics(report: JobReport, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(report.columns)
        writer.writerows(report.metrics)


def _write_results(report: JobReport, path: Path) -> None:
    """Writes the columns of the results that OpenAI's own jobs have."""
    held_out = dict(report.evaluations)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train_loss", "valid_loss", "learning_rate"])
        for row in report.metrics:
            writer.writerow([row.step, row.loss, held_out.get(row.step, ""), row.learning_rate])


def _draw(report: JobReport, path: Path) -> None:
    """Plots the losses without pyplot, which keeps every figure in memory."""
    from matplotlib.figure import Figure  # its first import on a machine runs fc-list

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = [row.step for row in report.metrics]
    axes.plot(steps, [row.loss for row in report.metrics], color="#4477aa", alpha=0.35, linewidth=1, label="each step")
    axes.plot(steps, _smooth([row.loss for row in report.metrics]), color="#4477aa", linewidth=2, label="smoothed")
    if report.evaluations:
        axes.plot(*zip(*report.evaluations, strict=True), "o-", color="#cc6633", linewidth=1.5, label="evaluation")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    name = _line(report.job.name or report.job.id)
    # The characters that matplotlib's own font has.
    known = name.isprintable() and all(ord(character) < 0x250 for character in name)
    axes.set_title(truncate(name, 60) if known else report.job.id, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _smooth(losses: list[float]) -> list[float]:
    """A running mean in which older losses weigh less: a loss a fortieth of the run ago weighs a third."""
    keep = 1 - 1 / max(1.0, len(losses) / 40)
    smoothed = []
    total = weight = 0.0
    for loss in losses:
        total, weight = keep * total + loss, keep * weight + 1
        smoothed.append(total / weight)
    return smoothed


def card(report: JobReport, base: str) -> str:
    """A model card for the Hugging Face hub: Markdown under a YAML header, which may contain JSON."""
    recipe = _without_paths(report.job.recipe) | {"model": base}
    dataset = recipe["dataset"]
    # A chat template of the recipe's own is saved with the adapter.
    tokenizer = "adapter" if dataset.get("chat_template") else base
    end = "" if report.done.get("completed") else f" It was not trained to its end: {_steps(report)}."
    sections = [
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\ntags:\n- lora\n- finetuned\n---",
        f"# {truncate(_line(report.job.name or report.job.id), 100)}",
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


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with file names in place of paths: readers of the card need not know the server's folders."""
    named = dict(recipe)
    named["dataset"] = _with_name(recipe["dataset"])
    evaluation = recipe.get("evaluation") or {}
    if evaluation.get("dataset"):
        named["evaluation"] = evaluation | {"dataset": _with_name(evaluation["dataset"])}
    return named


def _with_name(dataset: dict[str, Any]) -> dict[str, Any]:
    return dataset | {"path": Path(str(dataset["path"])).name}


def _results(report: JobReport) -> dict[str, Any]:
    last = report.metrics[-1]
    rows: dict[str, Any] = {"steps": _steps(report), "epochs": f"{last.epoch:.2f}", "last loss": f"{last.loss:.4f}"}
    if report.done.get("train_loss") is not None:
        rows["mean loss"] = f"{report.done['train_loss']:.4f}"
    if report.evaluations:
        step, loss = min(report.evaluations, key=lambda each: each[1])
        rows["evaluation loss"] = f"{report.evaluations[-1][1]:.4f}"
        rows["lowest evaluation loss"] = f"{loss:.4f}, after step {step}"
    return rows | {"tokens": f"{sum(row.tokens for row in report.metrics):,}"}


def _steps(report: JobReport) -> str:
    last, total = report.metrics[-1].step, report.job.total_steps
    return f"{last} of {total}" if total else str(last)


def _data(report: JobReport, dataset: dict[str, Any]) -> dict[str, Any]:
    rows = {"file": f"`{_line(dataset['path'])}`", "SHA-256": f"`{dataset['sha256']}`"}
    if report.started:
        rows["examples to train on"] = report.started["train_examples"]
        rows["examples to evaluate on"] = report.started["eval_examples"]
    return rows


def _made_with(started: dict[str, Any]) -> dict[str, Any]:
    facts = {name: started[name] for name in ("device", "world_size", "engine", "precision", "effective_batch_size")}
    counts = {name: f"{started[name]:,}" for name in ("trainable_parameters", "total_parameters")}
    return {name.replace("_", " "): value for name, value in (facts | counts).items()} | started["versions"]


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _line(text: str) -> str:
    return " ".join(text.split())
