"""`finetuned completion`."""

from typing import Annotated, Literal

import typer


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")]) -> None:
    """Print a script of completions for a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="finetuned", complete_var="_FINETUNED_COMPLETE", shell=shell))
