"""What the layout promises."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "part",
    [
        "api.app",
        "worker.attempt",
        "worker.keeper",
        "store.jobs",
        "finetuned.cli",
        "contract.machine",
        "contract.recipe",
        "dataset.read",
        "estimate.plan",
        "dataset.__main__",
        "worker.machine",
    ],
)
def test_only_the_trainer_loads_torch(part: str) -> None:
    code = f"import {part}, sys; print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_trainer_knows_no_service() -> None:
    unknown = ("sqlalchemy", "celery", "redis", "fastapi", "psycopg", "store")
    # Without bitsandbytes, as of every recipe that does not ask for it: that imports all that torch.compile can.
    code = (
        "import sys; sys.modules['bitsandbytes'] = None; import trainer.train; "
        f"print([name for name in {unknown} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"


def test_trainer_loads_no_remote_code_and_no_pickle() -> None:
    found = list(_calls(ROOT / "trainer"))
    assert not [call for name, _, call in found if name in ("torch.load", "pickle.load", "pickle.loads")]
    loading = [
        (name, given, call)
        for name, given, call in found
        if name.startswith("Auto") and name.endswith("from_pretrained")
    ]
    assert len(loading) > 5
    for name, given, call in loading:
        assert given.get("trust_remote_code") == "False", call
        if name.startswith("AutoModel") and "gguf_file" not in given:
            assert given.get("use_safetensors") == "True", call


def _calls(folder: Path) -> Iterator[tuple[str, dict[str | None, str], str]]:
    """What is called, the names and values it is given, and where."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                yield ast.unparse(node.func), given, f"{file}:{node.lineno}: {ast.unparse(node)}"


def test_tests_and_benchmarks_import_no_test_module() -> None:
    """What two of them need is in tests/support, or in a helper module beside them."""
    for file in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for module in _imported(file):
            parts = module.split(".")
            assert not any(part.startswith("test_") or part == "conftest" for part in parts), f"{file}: {module}"
            if "benchmarks" in file.relative_to(ROOT).parts[:1] and parts[0] == "tests":
                assert parts[:2] == ["tests", "support"], f"{file}: {module}"


def test_support_imports_no_tests() -> None:
    for file in (ROOT / "tests" / "support").rglob("*.py"):
        for module in _imported(file):
            assert not module.startswith("tests.") or module.startswith("tests.support"), f"{file}: {module}"


def _imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, with the names that it takes from it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_names_of_tests_have_three_to_eight_words() -> None:
    """The subject first, so that a sorted list tells what is tested."""
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                words = node.name.split("_")[1:]
                assert 3 <= len(words) <= 8, f"{file}: {node.name} has {len(words)} words"
                assert words[0] not in ("a", "an", "the", "what"), f"{file}: {node.name} begins with {words[0]}"
