"""`finetuned datasets`."""

from pathlib import Path
from typing import Annotated

import typer

from finetuned.cli.dataset_text import dataset_table, example_text, told_of
from finetuned.cli.job_text import format_bytes
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Owner, Url, owner_or_user
from finetuned.cli.terminal import err, fail, out, print_json, print_list, print_plain, tell
from finetuned.client import DEFAULT_URL, Client

app = typer.Typer(help="Files of examples.", invoke_without_command=True)
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id.")]


@app.callback()
def list_datasets(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List datasets, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.datasets())
    upload = on_service("datasets add FILE", url, key)
    print_list(found, as_json, dataset_table, f"no datasets yet; upload one with: {upload}")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, CSV, Parquet or text, packed or not.")],
    format: Annotated[str | None, typer.Option(help="How a row is written; default: as the first row tells.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=NAME", help="What the file calls a field of the format.")
    ] = None,
    owner: Owner = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload a file of examples and check its rows; prints the dataset's id. Exit code 1 if rows are at fault."""
    columns = _columns(column or [])
    with Client(url, owner_or_user(owner, key), key) as client:
        with err.status(f"uploading {file.name}, {format_bytes(file.stat().st_size)}"):
            dataset = client.add_dataset(file, format, columns)
        with err.status("its rows are being checked"):
            dataset = client.wait_for_dataset(dataset["id"])
    print_plain(dataset["id"])
    for line in told_of(dataset, on_service(f"datasets show {dataset['id']}", url, key)):
        tell(line)
    if dataset["status"] == "error":
        raise typer.Exit(1)


def _columns(given: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for each in given:
        field, name = _parted(each)
        if field in columns:
            fail(f"--column: got {field}={columns[field]} and {each}; give a field one column")
        columns[field] = name
    return columns


def _parted(given: str) -> tuple[str, str]:
    field, equals, name = given.partition("=")
    if not (field and equals and name):
        fail(f"--column: got {given}; give FIELD=NAME, such as prompt=question")
    return field, name


@app.command()
def show(dataset: DatasetId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Print a dataset as JSON, with what the check of its rows has found."""
    with Client(url, key=key) as client:
        print_json(client.dataset(dataset))


@app.command()
def preview(
    dataset: DatasetId,
    model: Annotated[str, typer.Option(help="Whose chat template and tokens: a model of the server.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="So many rows.")] = 5,
    offset: Annotated[int, typer.Option(min=0, help="After so many.")] = 0,
    max_length: Annotated[int, typer.Option(min=8, help="As the recipe's batch.max_length.")] = 2048,
    chat_template: Annotated[str | None, typer.Option(help="As the recipe's dataset.chat_template.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show rows as the model will see them; what is learned is marked."""
    options = {"chat_template": chat_template} if chat_template else {}
    with Client(url, key=key) as client:
        found = client.preview(dataset, model, limit=limit, offset=offset, max_length=max_length, **options)
    if as_json:
        print_json(found)
        return
    for example in found["data"]:
        out.print(example_text(example), soft_wrap=True)


@app.command()
def delete(dataset: DatasetId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a dataset, unless a job that has not ended needs it."""
    with Client(url, key=key) as client:
        client.delete_dataset(dataset)
    tell(f"{dataset} is deleted")
