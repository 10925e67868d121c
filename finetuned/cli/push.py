"""`finetuned push`: a job's artifact, on a model hub."""

from typing import Annotated

import typer

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.jobs import JobId
from finetuned.cli.options import EXPORT_FORMATS, Key, OneAsJson, Url
from finetuned.cli.terminal import fail, note, print_json, print_plain
from finetuned.objects.jobs import Push


def push(  # parameters: each is an option of the command
    job: JobId,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="The model's repo on the hub: org/name.")],
    artifact: Annotated[
        str | None, typer.Option("--artifact", help="Artifact of the job; default: adapter.tar.")
    ] = None,
    format: Annotated[str | None, typer.Option("--format", help=f"Export it first: {EXPORT_FORMATS}")] = None,
    secret: Annotated[
        str, typer.Option("--secret", help="Name of the secret with the hub's token: `finetuned secrets set hub`.")
    ] = "hub",
    public: Annotated[bool, typer.Option("--public", help="Create a public repo, if there is none yet.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, which is created if there is none; default: main.")
    ] = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Upload a job's adapter or an export of it to a model hub; prints its address."""
    with Client(url, key=key) as client:
        found = client.jobs.at(job)
        if format is not None:
            export = found.export(artifact or "adapter.tar", format)
            if export.failure is not None:
                fail(export.failure.message)
            artifact = export.artifact
        pushed = found.push(repo, artifact or "adapter.tar", secret, not public, revision, _tell)
    if as_json:
        print_json(pushed.raw)
    if pushed.status == "failed":
        fail(pushed.error or "failed")
    if not as_json:
        print_plain(pushed.url or "")


def _tell(push: Push) -> None:
    note(f"{push.error}; it is tried again, also after Ctrl-C")
