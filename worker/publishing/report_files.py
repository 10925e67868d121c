"""Writes the files of a job's report: its metrics as a table, its losses as a plot, and a model card."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from contract import patterns
from contract.events import SCORES
from contract.formatting import truncate
from contract.model_card import USE
from store.artifacts import REPORT
from store.jobs.job_report import JobReport
from worker.publishing import tensorboard
from worker.publishing.how_to_load import Loading, load_adapter

_RESULTS = (
    *("step", "train_loss", "train_accuracy", "train_mean_token_accuracy"),
    *("valid_loss", "valid_mean_token_accuracy", "full_valid_loss", "full_valid_mean_token_accuracy", "learning_rate"),
)


def write(kind: str, report: JobReport, base: str, path: Path) -> None:
    """Writes one kind of store.artifacts.REPORT. `base` is the model's name in the adapter's configuration."""
    if kind == "card":
        path.write_text(card(report, base, load_adapter(base, _tokenizer(report, base))))
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
    """Writes the columns of the results that OpenAI's own jobs have, and for a method that compares answers its
    rewards. An evaluation always takes all held-out examples, so "valid" and "full_valid" are the same."""
    held_out = {evaluation["step"]: evaluation for evaluation in report.evaluations}
    rewards = [name for name in SCORES if any(getattr(row, name) is not None for row in report.metrics)]
    rewards = [name for name in rewards if name != "token_accuracy"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_RESULTS, *rewards])
        for row in report.metrics:
            evaluation = held_out.get(row.step, {})
            of_step = [row.step, row.loss, row.token_accuracy, row.token_accuracy]
            of_evaluation = [evaluation.get("eval_loss"), evaluation.get("token_accuracy")] * 2
            writer.writerow([*of_step, *of_evaluation, row.learning_rate, *(getattr(row, name) for name in rewards)])


def _draw(report: JobReport, path: Path) -> None:
    """Plots the losses without pyplot, which keeps every figure in memory."""
    from matplotlib.figure import Figure  # its first import on a machine runs fc-list

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = [row.step for row in report.metrics]
    axes.plot(steps, [row.loss for row in report.metrics], color="#4477aa", alpha=0.35, linewidth=1, label="each step")
    axes.plot(steps, _smooth([row.loss for row in report.metrics]), color="#4477aa", linewidth=2, label="smoothed")
    if report.evaluations:
        losses = [evaluation["eval_loss"] for evaluation in report.evaluations]
        at = [evaluation["step"] for evaluation in report.evaluations]
        axes.plot(at, losses, "o-", color="#cc6633", linewidth=1.5, label="evaluation")
    method = report.job.recipe.get("method", {}).get("type", "sft")
    axes.set(xlabel="step", ylabel="loss (nats per token)" if method == "sft" else f"{method} loss")
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


def _tokenizer(report: JobReport, base: str) -> str:
    """A chat template of the recipe's own is saved with the adapter."""
    return "adapter" if report.job.recipe["dataset"].get("chat_template") else base


def card(report: JobReport, base: str, loading: Loading) -> str:
    """A model card for the Hugging Face hub: Markdown under a YAML header, which may contain JSON."""
    recipe = _without_paths(report.job.recipe) | {"model": base}
    dataset = recipe["dataset"]
    end = "" if report.done.get("completed") else f" It was not trained to its end: {_steps(report)}."
    sections = [
        _front_matter(report.job.recipe, base, loading),
        f"# {truncate(_line(report.job.name or report.job.id), 100)}",
        f"{loading.what} for `{_line(base)}`, trained by finetuned as job `{report.job.id}`.{end}",
        f"{USE}\n\n{loading.text}",
        f"## Results\n\n![The loss by step]({REPORT['curve']})\n\n{_table(_results(report))}",
        f"## Data\n\n{_table(_data(report, dataset))}",
        f"## Recipe\n\n```json\n{json.dumps(recipe, indent=2)}\n```",
    ]
    if report.started:
        sections.append(f"## Made with\n\n{_table(_made_with(report.started))}")
    return "\n\n".join(sections) + "\n"


def _front_matter(recipe: dict[str, Any], base: str, loading: Loading) -> str:
    """The hub refuses a base model that has no name of a hub. The license is for the owner to know."""
    fields: dict[str, Any] = {"library_name": loading.library, "pipeline_tag": "text-generation"}
    if re.fullmatch(patterns.HUB_REPO, base):
        fields = {"base_model": base, "base_model_relation": loading.relation, **fields}
    fields["tags"] = ["lora", recipe.get("method", {}).get("type", "sft"), "finetuned"]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


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
        last_one = report.evaluations[-1]
        lowest = min(report.evaluations, key=lambda each: each["eval_loss"])
        rows["evaluation loss"] = f"{last_one['eval_loss']:.4f}"
        rows["lowest evaluation loss"] = f"{lowest['eval_loss']:.4f}, after step {lowest['step']}"
        for name in SCORES:
            if last_one.get(name) is not None:
                rows[f"evaluation {name.replace('_', ' ')}"] = f"{last_one[name]:.4g}"
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
