"""Recipes as the command reads and changes them."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetuned.cli.terminal import fail
from finetuned.errors import InvalidRequest

_ERROR = "// "


def read_recipe(file: str, changes: Sequence[str]) -> bytes:
    """The recipe in `file`, or in stdin for "-", with the `changes` PATH=VALUE."""
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    if not changes:
        return body  # as its owner wrote it: the service names what is wrong
    try:
        recipe = json.loads(body)
    except ValueError as error:
        fail(f"{file} is not JSON: {error}")
    if not isinstance(recipe, dict):
        fail(f"{file} has no JSON object")
    return json.dumps(with_changes(recipe, changes)).encode()


def with_changes(recipe: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Sets the fields of `changes`, each PATH=VALUE; a value that is not JSON is text."""
    changed: dict[str, Any] = json.loads(json.dumps(recipe))
    for change in changes:
        path, equals, text = change.partition("=")
        if not (path and equals):
            fail(f"--set: got {change}; give PATH=VALUE, such as schedule.epochs=3")
        *sections, name = path.split(".")
        place = changed
        for section in sections:
            if place.get(section) is None:
                place[section] = {}
            place = place[section]
            if not isinstance(place, dict):
                fail(f"--set: got {change}; {section} is no section of the recipe")
        place[name] = _value(text)
    return changed


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def edit_until_accepted(recipe: dict[str, Any], accept: Callable[[bytes], str]) -> str:
    """Opens the recipe in the user's editor, again with the error while `accept` refuses it. Ends the command when the
    user changes nothing in answer to an error."""
    text = json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
    with tempfile.TemporaryDirectory(prefix="finetuned-") as folder:
        file = Path(folder) / "recipe.json"
        file.write_text(text)
        while True:
            _open_editor(file)
            text, before = file.read_text(), text
            body = "".join(line for line in text.splitlines(True) if not line.startswith(_ERROR)).encode()
            try:
                json.loads(body)
                return accept(body)
            except InvalidRequest as error:
                message = str(error)
            except ValueError as error:
                message = f"this is not JSON: {error}"
            if text == before and text.startswith(_ERROR):
                fail(f"{message}\nnothing was submitted, as the recipe was not changed")
            text = "".join(f"{_ERROR}{line}\n" for line in message.splitlines()) + body.decode()
            file.write_text(text)


def _open_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(file)])
    except OSError as error:
        fail(f"cannot start the editor {editor}: {error.strerror}; set EDITOR to another")
    if done.returncode:
        fail(f"the editor ended with {done.returncode}; nothing was submitted")


def flat(recipe: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a recipe by their dotted paths."""
    for name, value in recipe.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
