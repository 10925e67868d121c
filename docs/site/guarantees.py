"""Writes docs/guarantees.md from docs/guarantees.toml; with --check it only compares them."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs/guarantees.toml"
PAGE = ROOT / "docs/guarantees.md"
INTRODUCTION = """\
# Guarantees

Every promise of this service, with the tests that fail when it is broken. To run one: `scripts/test FILE::TEST`.

This page is generated. To change it, edit [guarantees.toml](guarantees.toml) and run `python -m docs.site.guarantees`.
"""

Promises = dict[str, list[str]]


def read_promises() -> dict[str, Promises]:
    """The promises of each section, each with the names of its tests."""
    return tomllib.loads(SOURCE.read_text())


def find_tests() -> dict[str, list[str]]:
    """The files of each test function, by its name."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE):
            files.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    return files


def faults(sections: dict[str, Promises], tests: dict[str, list[str]]) -> Iterator[str]:
    """What is wrong with the source: a promise without a test, or a test that does not exist."""
    for promises in sections.values():
        for promise, names in promises.items():
            if not names:
                yield f"{promise!r}: got no test; name one that fails when the promise is broken"
            for name in names:
                if name not in tests:
                    yield f"{promise!r}: got {name}, which no file in tests/ defines; give its new name"


def render(sections: dict[str, Promises], tests: dict[str, list[str]]) -> str:
    """The page as Markdown."""
    lines = [INTRODUCTION]
    for title, promises in sections.items():
        lines += [f"## {title}", ""]
        for promise, names in promises.items():
            lines.append(f"- {promise}")
            lines += [f"    - `{file}::{name}`" for name in names for file in tests[name]]
        lines.append("")
    return "\n".join(lines)


def main(check: bool) -> str | None:
    """What is wrong, for sys.exit; None where nothing is."""
    sections, tests = read_promises(), find_tests()
    if wrong := list(faults(sections, tests)):
        return "docs/guarantees.toml:\n" + "\n".join(wrong)
    page = render(sections, tests)
    if not check:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        return "docs/guarantees.md: differs from docs/guarantees.toml; run python -m docs.site.guarantees"
    return None


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
