"""Datasets for people who look at a terminal."""

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


def told_of(dataset: dict[str, Any], show: str) -> Iterator[str]:
    """What the check has found, in lines; `show` is the command that has all of it."""
    report = dataset["report"]
    if report is None:
        yield one_line(with_options(dataset["status_details"] or dataset["status"]))
        return
    duplicates = f", {report['duplicates']} of them more than once" if report["duplicates"] else ""
    yield f"{report['rows']} rows of {report['format'] or 'no format'}, {report['examples']} examples{duplicates}"
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
        yield f"and {more} more; {show} has the first hundred"


def with_options(message: str) -> str:
    """The service speaks of a recipe's fields; here the options of `finetuned datasets add` stand for them."""
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
    """What is learned is green, and what max_length cuts off is struck out."""
    told = Text().append(f"row {example['row']}: {_note(example)}\n", style="dim")
    for text in example["texts"]:
        for index, token in enumerate(text["tokens"]):
            style = _CUT if index >= text["kept"] else _LEARNED if token["supervised"] else ""
            told.append(_visible(token["text"]), style=style)
        if len(text["tokens"]) < text["length"]:
            told.append(f" ... and {text['length'] - len(text['tokens'])} tokens more", style="dim")
        told.append("\n")
    return told


def _note(example: dict[str, Any]) -> str:
    if example["problem"] is not None:
        return one_line(example["problem"])
    tokens = ", ".join(f"{text['length']} tokens, {text['supervised']} learned" for text in example["texts"])
    fate = "; left out: no answer begins within the length" if example["dropped"] else ""
    return f"{tokens}{'; cut' if example['truncated'] else fate}"


def _visible(text: str) -> str:
    """Nothing in it may steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
