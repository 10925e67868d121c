"""Datasets as text for a terminal."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from finetuned.cli.job_text import format_bytes, one_line
from finetuned.cli.terminal import age, list_table

_LEARNED = "bold green"
_CUT = "dim strike"
_MOST_ERRORS = 10


def dataset_table(datasets: list[dict[str, Any]]) -> Table:
    table = list_table("dataset", "file", "owner", "status", "rows", "size", "age", folding=("file", "owner"))
    for each in datasets:
        rows = "" if each["rows"] is None else str(each["rows"])
        table.add_row(
            each["id"],
            one_line(each["filename"]),
            each["owner"],
            each["status"],
            rows,
            format_bytes(each["bytes"]),
            age(each["created_at"]),
        )
    return table


def report_lines(dataset: dict[str, Any], show: str) -> Iterator[str]:
    """The report on a dataset's rows; `show` is the command that prints all of it."""
    report = dataset["report"]
    if report is None:
        yield one_line(with_options(dataset["status_details"] or dataset["status"]))
        return
    duplicates = f", {report['duplicates']} of them duplicates" if report["duplicates"] else ""
    yield f"{report['rows']} rows of {report['format'] or 'no format'}, {report['examples']} examples{duplicates}"
    if report.get("learned") == "pairs":
        yield f"pairs of answers, {report['identical_pairs']} of them identical"
    if report.get("learned") == "ratings":
        yield f"{report['desirable']} answers rated as good, {report['undesirable']} as bad"
    if report.get("columns"):
        yield one_line("read " + ", ".join(f"{column} as {field}" for field, column in report["columns"].items()))
    if report["unused_fields"]:
        unused = ", ".join(
            f"{name} ({rows} row{'s' if rows > 1 else ''})" for name, rows in report["unused_fields"].items()
        )
        yield one_line(f"unused fields: {unused}")
    for problem in report["errors"][:_MOST_ERRORS]:
        where = "" if problem["row"] is None else f"row {problem['row']}: "
        yield one_line(with_options(f"{where}{problem['message']}"))
    more = report["error_count"] - min(_MOST_ERRORS, len(report["errors"]))
    if more > 0:
        yield f"and {more} more; {show} prints the first hundred"


def with_options(message: str) -> str:
    """Replaces the recipe fields in the service's message by options of `finetuned datasets add`."""
    message = re.sub(r"dataset\.columns (\{[^{}]*\})", _column_options, message)
    message = re.sub(r'dataset\.format "(\w+)"', r"--format \1", message)
    return message.replace("dataset.columns", "--column").replace("dataset.format", "--format")


def _column_options(found: re.Match[str]) -> str:
    try:
        columns: dict[str, str] = json.loads(found[1])
    except ValueError:  # cut off
        return found[0]
    return " ".join(f"--column {shlex.quote(f'{field}={column}')}" for field, column in columns.items())


def example_text(example: dict[str, Any]) -> Text:
    """An example with its learned tokens in green, and those beyond max_length struck out."""
    shown = Text().append(f"row {example['row']}: {_note(example)}\n", style="dim")
    for text in example["texts"]:
        if text.get("answer") is not None:
            shown.append(f"{text['answer']}: ", style="dim")
        for index, token in enumerate(text["tokens"]):
            style = _CUT if index >= text["kept"] else _LEARNED if token["supervised"] else ""
            shown.append(_visible(token["text"]), style=style)
        if len(text["tokens"]) < text["length"]:
            shown.append(f" ... and {text['length'] - len(text['tokens'])} more tokens", style="dim")
        shown.append("\n")
    return shown


def _note(example: dict[str, Any]) -> str:
    if example["problem"] is not None:
        return one_line(example["problem"])
    tokens = ", ".join(f"{text['length']} tokens, {text['supervised']} learned" for text in example["texts"])
    desirable = example.get("desirable")
    rated = "" if desirable is None else f"; rated as {'good' if desirable else 'bad'}"
    is_pair = any(text.get("answer") for text in example["texts"])
    missing = "one answer does not begin" if is_pair else "no answer begins"
    fate = f"; left out: {missing} within the length" if example["dropped"] else ""
    return f"{tokens}{rated}{'; cut' if example['truncated'] else fate}"


def _visible(text: str) -> str:
    """The text without characters that steer a terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
