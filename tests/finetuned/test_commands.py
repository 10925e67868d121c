"""The command as a whole: its help, exit codes and completion."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import finetuned
from finetuned.cli.exit_codes import MEANINGS
from finetuned.cli.lazy import load
from finetuned.cli.main import CLIENT, LOCAL
from tests.finetuned.command_line import finetuned as run
from tests.support.servers import free_port

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text()


@pytest.mark.parametrize("name", [*LOCAL, *CLIENT])
def test_listed_help_is_the_commands_own(name: str) -> None:
    lazy = (LOCAL | CLIENT)[name]
    shown = (load(name, lazy).help or "").split("\n\n")[0].split(";")[0].split(".")[0]
    assert shown.replace("\n", " ") in lazy.help


def test_documented_exit_codes_are_the_commands() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == MEANINGS


def test_exit_codes_tell_kinds_of_failure_apart() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    unreachable = run("list", "--url", url)
    assert (unreachable.returncode, unreachable.stdout) == (3, "")
    assert url in unreachable.stderr
    assert "FINETUNED_URL" in unreachable.stderr
    assert run("list", "--colour").returncode == 2
    assert run("submit", "none.json", "--url", url).returncode == 1


def test_help_imports_neither_http_nor_tables() -> None:
    code = (
        "import sys\nfrom finetuned.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('httpx', 'rich', 'pydantic', 'asyncio') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"
    assert all(name in done.stdout for name in CLIENT)


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"{finetuned.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_FINETUNED_COMPLETE" in done.stdout


def test_completion_lists_the_commands() -> None:
    request = {"_FINETUNED_COMPLETE": "complete_bash", "COMP_WORDS": "finetuned wa", "COMP_CWORD": "1"}
    assert run(**request).stdout.split() == ["watch"]


@pytest.mark.parametrize("name", sorted({*LOCAL, *CLIENT} - {"demo", "completion"}))
def test_every_command_has_json(name: str) -> None:
    assert list(without_json(name, load(name, (LOCAL | CLIENT)[name]))) == []


def without_json(name: str, command: Any) -> Iterator[str]:
    """The commands of a group, or a single command, that lack the option."""
    inner = getattr(command, "commands", {})
    for word, each in inner.items():
        yield from without_json(f"{name} {word}", each)
    if not inner and not any("--json" in each.opts for each in command.params):
        yield name
