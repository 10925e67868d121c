"""Options that several commands share."""

import getpass
import os
import re
from typing import Annotated

import typer

Url = Annotated[str, typer.Option(envvar="FINETUNED_URL", help="Address of the service.")]
Key = Annotated[str | None, typer.Option(envvar="FINETUNED_API_KEY", help="API key, if the service requires one.")]
Owner = Annotated[
    str | None,
    typer.Option(envvar="FINETUNED_OWNER", help="Owner to act for; default: the key's owner, else your login name."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON list.")]
OneAsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Limit = Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")]

EXPORT_FORMATS = (
    "merged (into the base), merged-gguf-f16 or merged-gguf-q8_0 (that for llama.cpp), portable (for vLLM, SGLang, "
    "PEFT), or gguf (the adapter for llama.cpp)."
)


def owner_or_user(owner: str | None, key: str | None) -> str | None:
    """The owner to act for; None where the key determines it."""
    return owner or (None if key else _user())


def _user() -> str:
    """The login name, as far as the service accepts it."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        name = f"user-{os.getuid()}"
    return re.sub(r"[^\w.@-]", "_", name, flags=re.ASCII)[:100]
