"""`finetuned compare`."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client, Job
from finetuned.address import DEFAULT_URL
from finetuned.cli.curve import curve
from finetuned.cli.job_text import one_line
from finetuned.cli.options import Key, OneAsJson, Url
from finetuned.cli.recipes import flat
from finetuned.cli.terminal import out, plain_table, print_json

_WIDTH, _LINES = 30, 4
_REWARDS = ("reward_accuracy", "reward_margin")
"""Only methods that compare answers have them."""


def compare(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of two jobs or more.")],
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Compare the recipes and results of jobs."""
    with Client(url, key=key) as client:
        found = [client.jobs.get(each) for each in jobs]
        losses = [[loss for loss in job.metrics(columns="loss").get("loss", ()) if loss is not None] for job in found]
    recipe = _differences([dict(flat(job.recipe)) for job in found])
    results = {name: [row[name] for row in map(_result, found)] for name in _result(found[0])}
    if as_json:
        print_json({"jobs": [job.id for job in found], "recipe": recipe, "result": results, "losses": losses})
        return
    shown = {
        name: row for name, row in results.items() if name not in _REWARDS or any(each is not None for each in row)
    }
    out.print(_table(found, recipe | shown, losses), markup=False, highlight=False)


def _differences(recipes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The fields that are not the same in all recipes, with the value in each; None where a recipe has none."""
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    rows = {name: [recipe.get(name) for recipe in recipes] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _result(job: Job) -> dict[str, Any]:
    at = job.progress
    seconds = None if not (job.started_at and job.finished_at) else (job.finished_at - job.started_at).total_seconds()
    return {
        "status": job.status,
        "step": at and at.step,
        "loss": at and at.loss,
        "eval_loss": at and at.eval_loss,
        **{name: at and getattr(at, name) for name in _REWARDS},
        "tokens_per_second": at and at.tokens_per_second,
        "seconds": seconds,
    }


def _table(jobs: list[Job], rows: dict[str, list[Any]], losses: list[list[float]]) -> Table:
    table = plain_table()
    for name in ("", *(job.id for job in jobs)):
        table.add_column(name, overflow="fold")
    for name, values in rows.items():
        table.add_row(name, *map(_cell, values))
    table.add_row("loss curve", *("\n".join(curve(each, _WIDTH, _LINES)) for each in losses))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else one_line(value if isinstance(value, str) else json.dumps(value))
