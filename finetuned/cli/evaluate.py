"""`finetuned evaluate`."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.jobs import JobId
from finetuned.cli.options import Key, OneAsJson, Url
from finetuned.cli.terminal import fail, note, out, plain_table, print_json
from finetuned.objects.jobs import EvaluatedRow, Scores

Data = Annotated[
    str,
    typer.Option("--dataset", metavar="FILE_OR_ID", help="A dataset's id, a file here, or a path on the server."),
]
Step = Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Use the checkpoint of this step.")]
Most = Annotated[int, typer.Option("--limit", min=1, help="Evaluate at most the first so many examples.")]
Tokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer.")]
_ROWS = 3
"""Examples that are printed."""
_SCORES = {
    "loss": "loss",
    "perplexity": "perplexity",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
}


def evaluate(  # parameters: options
    job: JobId,
    dataset: Data,
    checkpoint: Step = None,
    limit: Most = 200,
    max_new_tokens: Tokens = 256,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Run a dataset through the base model and a job's adapter, and compare them; waits for the scores."""
    options: dict[str, Any] = {"limit": limit, "max_new_tokens": max_new_tokens}
    with Client(url, key=key) as client:
        if Path(dataset).is_file():
            dataset = client.datasets.upload(dataset).wait().id
            note(f"uploaded as {dataset}")
        if checkpoint is not None:
            options["checkpoint"] = checkpoint
        evaluation = client.evaluations.create(job, dataset, **options)
        note(f"evaluation: {evaluation.id}")
        evaluation = evaluation.wait()
        rows = list(islice(evaluation.rows(), _ROWS)) if not as_json else []
    if as_json:
        print_json(evaluation.raw)
    if evaluation.failure is not None:
        fail(evaluation.failure.message)
    if not as_json and evaluation.scores is not None:
        out.print(_scores(evaluation.scores), markup=False, highlight=False)
        _print_rows(rows)
        dropped = f"; {evaluation.dropped} were too long to evaluate" if evaluation.dropped else ""
        note(f"{evaluation.scores.examples} examples{dropped}; all answers: {evaluation.artifact}")


def _scores(scores: Scores) -> Table:
    table = plain_table()
    for name in ("", "base", "adapter"):
        table.add_column(name)
    for name, words in _SCORES.items():
        table.add_row(words, *(_number(getattr(each, name)) for each in (scores.base, scores.adapter)))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _print_rows(rows: list[EvaluatedRow]) -> None:
    for row in rows:
        lines = {
            f"example {row.number}": row.prompt,
            "reference": row.reference,
            "base": row.base.answer,
            "adapter": row.adapter.answer,
        }
        out.print("")
        for name, text in lines.items():
            out.print(f"{name}: {text.strip()}", markup=False, highlight=False, soft_wrap=True)
