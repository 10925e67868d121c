"""Sweeps as tables and lines."""

import json
from collections import Counter
from typing import Any

from rich.table import Table

from finetuned.cli.job_text import one_line
from finetuned.cli.terminal import age, list_table

_REWARDS = {"reward_accuracy": "reward accuracy", "reward_margin": "reward margin"}


def sweep_table(sweep: dict[str, Any]) -> Table:
    """A row for each job: its values and its results."""
    fields = [one_line(field) for field in sweep["fields"]]
    # Only methods that compare answers have rewards.
    rewards = [name for name in _REWARDS if any(job[name] is not None for job in sweep["jobs"])]
    results = ("loss", "eval_loss", *rewards)
    headers = ("loss", "eval loss", *(_REWARDS[name] for name in rewards))
    table = list_table("", "job", *fields, "status", "step", *headers, folding=fields)
    for job in sweep["jobs"]:
        step = "" if job["step"] is None else f"{job['step']}/{job['total_steps'] or '?'}"
        mark = "*" if job["id"] == sweep["best"] else ""
        values = [_value(job["values"], field) for field in sweep["fields"]]
        table.add_row(mark, job["id"], *values, job["status"], step, *(_number(job[name]) for name in results))
    return table


def sweep_lines(sweep: dict[str, Any]) -> list[str]:
    """How each job of a sweep stands."""
    return [f"{job['id']} {_values(job['values'])}: {job['status']}{_results(job)}" for job in sweep["jobs"]]


def list_of_sweeps(sweeps: list[dict[str, Any]]) -> Table:
    table = list_table("sweep", "name", "owner", "fields", "jobs", "best", "age", folding=("name", "owner", "fields"))
    for sweep in sweeps:
        statuses = Counter(job["status"] for job in sweep["jobs"])
        counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
        row = (one_line(sweep["name"] or ""), sweep["owner"], one_line(", ".join(sweep["fields"])), counts)
        table.add_row(sweep["id"], *row, sweep["best"] or "", age(sweep["created_at"]))
    return table


def _value(values: dict[str, Any], field: str) -> str:
    return _text(values[field]) if field in values else ""


def _values(values: dict[str, Any]) -> str:
    return " ".join(f"{one_line(field)}={_text(value)}" for field, value in values.items())


def _text(value: Any) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value))


def _results(job: dict[str, Any]) -> str:
    named = {"loss": "loss", "eval_loss": "evaluation loss", **_REWARDS}
    return "".join(f", {word} {_number(job[name])}" for name, word in named.items() if job[name] is not None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
