"""`finetuned datasets`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.dataset_text import dataset_table, example_text, report_lines
from finetuned.cli.job_text import format_bytes
from finetuned.cli.next_command import on_service
from finetuned.cli.offline_check import check_here
from finetuned.cli.options import AsJson, Key, OneAsJson, Owner, Url, owner_or_user
from finetuned.cli.terminal import err, fail, note, out, print_json, print_list, print_plain

app = typer.Typer(help="Files of examples.", invoke_without_command=True)
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id.")]


@app.callback()
def list_datasets(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List datasets, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = [each.raw for each in client.datasets.list()]
    upload = on_service("datasets add FILE", url, key)
    print_list(found, as_json, dataset_table, f"no datasets yet; upload one with: {upload}")


@app.command()
def add(  # parameters: each is an option of the command
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, CSV, Parquet or text, compressed or not.")],
    format: Annotated[str | None, typer.Option(help="Format of a row; default: detected from the first one.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=NAME", help="The file's name for a field; repeatable."),
    ] = None,
    owner: Owner = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload a file of examples, check its rows and print the dataset's id; exit code 1 if rows are wrong."""
    columns = _columns(column or [])
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        with err.status(f"uploading {file.name}, {format_bytes(file.stat().st_size)}"):
            uploaded = client.datasets.upload(file, format, columns)
        with err.status("checking its rows"):
            dataset = uploaded.refresh().wait().raw
    if as_json:
        print_json(dataset)
    else:
        print_plain(dataset["id"])
    for line in report_lines(dataset, on_service(f"datasets show {dataset['id']} --json", url, key)):
        note(line)
    if dataset["status"] == "error":
        raise typer.Exit(1)


def _columns(options: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for each in options:
        field, name = _split_column(each)
        if field in columns:
            fail(f"--column: got {field}={columns[field]} and {each}; give a field one column")
        columns[field] = name
    return columns


def _split_column(option: str) -> tuple[str, str]:
    field, equals, name = option.partition("=")
    if not (field and equals and name):
        fail(f"--column: got {option}; give FIELD=NAME, such as prompt=question")
    return field, name


@app.command()
def check(  # parameters: each is an option of the command
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, CSV, Parquet or text, compressed or not.")],
    format: Annotated[str | None, typer.Option(help="Format of a row; default: detected from the first one.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=NAME", help="The file's name for a field; repeatable.")
    ] = None,
    as_json: OneAsJson = False,
) -> None:
    """Check a file on this machine, without a service and an upload; exit code 1 if rows are wrong."""
    report = check_here(file, format, _columns(column or []))
    if as_json:
        print_json(report)
    else:
        for line in report_lines({"report": report}, f"finetuned datasets check {shlex.quote(str(file))} --json"):
            print_plain(line)
    if report["errors"]:
        raise typer.Exit(1)


@app.command()
def show(dataset: DatasetId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show a dataset, with the report on its rows."""
    with Client(url, key=key) as client:
        found = client.datasets.get(dataset).raw
    if as_json:
        print_json(found)
        return
    out.print(dataset_table([found]), markup=False, highlight=False)
    for line in report_lines(found, on_service(f"datasets show {found['id']} --json", url, key)):
        print_plain(line)


@app.command()
def preview(  # parameters: each is an option of the command
    dataset: DatasetId,
    model: Annotated[str, typer.Option(help="Base model on the server, for its chat template and tokenizer.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="Number of rows.")] = 5,
    offset: Annotated[int, typer.Option(min=0, help="Rows to skip.")] = 0,
    max_length: Annotated[int, typer.Option(min=8, help="The recipe's batch.max_length.")] = 2048,
    chat_template: Annotated[str | None, typer.Option(help="The recipe's dataset.chat_template.")] = None,
    method: Annotated[str | None, typer.Option(help="The recipe's method, such as dpo.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show rows as the model will see them, with the learned tokens marked."""
    options = {"chat_template": chat_template, "method": method}
    options = {name: value for name, value in options.items() if value is not None}
    with Client(url, key=key) as client:
        found = client.datasets.at(dataset).preview(model, limit=limit, offset=offset, max_length=max_length, **options)
    if as_json:
        print_json([each.raw for each in found])
        return
    for example in found:
        out.print(example_text(example.raw), soft_wrap=True)


@app.command()
def delete(dataset: DatasetId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a dataset, unless a job that is not over needs it."""
    with Client(url, key=key) as client:
        client.datasets.at(dataset).delete()
    if as_json:
        print_json({"id": dataset, "deleted": True})
    else:
        note(f"{dataset} is deleted")
