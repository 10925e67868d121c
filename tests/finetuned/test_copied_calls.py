"""What the dashboard hands out to be copied. web/tests/calls.json has an example of each, which web/tests/calls.test.ts
compares with what the page makes."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from finetuned.cli.main import app
from tests.finetuned.command_line import parse_command
from tests.support.api import description

EXAMPLES = json.loads((Path(__file__).parents[2] / "web/tests/calls.json").read_text())
URL = "http://127.0.0.1:8000"


def first_line(command: str) -> list[str]:
    """Its words, without the file that follows as stdin."""
    return shlex.split(command.split("\n")[0].partition(" <<")[0])


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    paths: dict[str, dict[str, Any]] = description()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("command", [each["command"] for each in EXAMPLES if "command" in each])
def test_copied_command_is_one_of_the_command_line(command: str) -> None:
    program, *words = first_line(command)
    assert program == "finetuned"
    parse_command(typer.main.get_command(app), words)
    with pytest.raises(Exception, match="No such option"):
        parse_command(typer.main.get_command(app), [*words, "--no-such-option"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each["curl"])
def test_copied_curl_call_is_a_route(example: dict[str, str], routes: set[tuple[str, str]]) -> None:
    words = shlex.split(example["curl"])
    assert words[:5] == ["curl", "-X", words[2], "-H", "Authorization: Bearer $FINETUNED_API_KEY"]
    path = words[-1].removeprefix(URL).partition("?")[0]
    matching = {route for route in routes if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route[1]), path)}
    assert words[2] in {method for method, _ in matching}
    if "--json" in words:
        json.loads(words[words.index("--json") + 1])
