"""The shape of the code: `python -m benchmarks.structure [CHECKOUT]` prints it.

Counts the files, functions and parameters of every package but tests and benchmarks, the tests, and the lines of
README.md. With the folder of another checkout its figures come first, so a change reads as before and after. `--list`
names each function with too many parameters and each class name that is defined twice.

A function may have more than five parameters where a comment in its signature gives the reason: `# parameters: ...`.
"""

import argparse
import ast
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_PARAMETERS = 5
ROOT = Path(__file__).parent.parent
_NO_PRODUCT = {"tests", "benchmarks"}
_REASON = re.compile(r"#\s*parameters: \S")


@dataclass(frozen=True)
class Function:
    place: str
    """The file and the name, such as "store/jobs/jobs.py: create"."""
    lines: int
    parameters: int
    """Without self and cls."""
    reason: bool
    """Whether its signature says why it has so many parameters."""

    @property
    def unexplained(self) -> bool:
        return self.parameters > MOST_PARAMETERS and not self.reason


@dataclass(frozen=True)
class Structure:
    file_lines: Mapping[str, int]
    functions: list[Function]
    classes: Mapping[str, list[str]]
    """The files that define a class, by its name."""
    tests: int
    readme_lines: int

    @property
    def unexplained(self) -> list[Function]:
        return [each for each in self.functions if each.unexplained]

    @property
    def repeated_classes(self) -> dict[str, list[str]]:
        """The client is a package of its own, whose objects have the names that the service's have."""
        service = {
            name: [file for file in files if not file.startswith("finetuned/")]
            for name, files in sorted(self.classes.items())
        }
        return {name: files for name, files in service.items() if len(files) > 1}

    def p90_lines(self) -> int:
        ordered = sorted(each.lines for each in self.functions)
        return ordered[math.ceil(0.9 * len(ordered)) - 1]


def read_structure(root: Path) -> Structure:
    file_lines: dict[str, int] = {}
    functions: list[Function] = []
    classes: dict[str, list[str]] = defaultdict(list)
    for file in product_files(root):
        name, text = str(file.relative_to(root)), file.read_text()
        file_lines[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(_function(name, node, text))
            elif isinstance(node, ast.ClassDef):
                classes[node.name].append(name)
    readme = root / "README.md"
    readme_lines = len(readme.read_text().splitlines()) if readme.exists() else 0
    return Structure(file_lines, functions, classes, _count_tests(root / "tests"), readme_lines)


def product_files(root: Path) -> Iterator[Path]:
    packages = {each.parent.name for each in root.glob("*/__init__.py")} | {"finetuned"}
    for package in sorted(packages - _NO_PRODUCT):
        yield from sorted((root / package).rglob("*.py"))


def _function(file: str, node: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> Function:
    given = node.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    parameters = len(names) - (names[:1] in (["self"], ["cls"]))
    signature = text.splitlines()[node.lineno - 1 : node.body[0].lineno - 1] or text.splitlines()[node.lineno - 1 :][:1]
    reason = any(_REASON.search(line) for line in signature)
    return Function(f"{file}: {node.name}", (node.end_lineno or 0) - node.lineno + 1, parameters, reason)


def _count_tests(folder: Path) -> int:
    """Test functions; a parametrised one counts once."""
    return sum(len(re.findall(r"^\s*def test_", file.read_text(), re.MULTILINE)) for file in folder.rglob("test_*.py"))


def figures(found: Structure) -> dict[str, float]:
    lines = [each.lines for each in found.functions]
    return {
        "files": len(found.file_lines),
        "lines": sum(found.file_lines.values()),
        "lines of the median file": statistics.median(found.file_lines.values()),
        "lines of the longest file": max(found.file_lines.values()),
        "functions": len(lines),
        "lines of the median function": statistics.median(lines),
        "lines of the 90th percentile": found.p90_lines(),
        "lines of the longest function": max(lines),
        f"functions with more than {MOST_PARAMETERS} parameters": sum(
            each.parameters > MOST_PARAMETERS for each in found.functions
        ),
        "of these without a reason": len(found.unexplained),
        "class names defined twice": len(found.repeated_classes),
        "tests": found.tests,
        "lines of README.md": found.readme_lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description="Print the shape of the code.")
    parser.add_argument("before", nargs="?", type=Path, metavar="CHECKOUT", help="another checkout, printed first")
    parser.add_argument("--list", action="store_true", help="name the functions and classes that stand out")
    options = parser.parse_args()
    checkouts = ([options.before] if options.before else []) + [ROOT]
    structures = [read_structure(each) for each in checkouts]
    columns = [figures(each) for each in structures]
    for name in columns[0]:
        print(f"{name:42}" + "".join(f"{column[name]:>10,g}" for column in columns))
    if options.list:
        print("\nfunctions with more than five parameters")
        for each in structures[-1].functions:
            if each.parameters > MOST_PARAMETERS:
                print(f"    {each.parameters} {each.place}{'' if each.unexplained else '   (with a reason)'}")
        print("\nclass names defined twice")
        for name, files in structures[-1].repeated_classes.items():
            print(f"    {name}: {', '.join(files)}")


if __name__ == "__main__":
    main()
