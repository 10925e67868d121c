import os
import subprocess
import sys
from typing import Any


def finetuned(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "finetuned", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)


def parse_command(command: Any, words: list[str], parent: Any = None) -> None:
    """Raises click's UsageError for an unknown command or option, or a missing argument."""
    context = command.make_context(command.name, list(words), parent=parent)
    if hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        _, subcommand, words = command.resolve_command(context, rest)
        parse_command(subcommand, words, context)
