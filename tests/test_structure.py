"""What the layout promises."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.structure import Structure, read_structure

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "part",
    [
        "api.app",
        "worker.attempt.lifecycle",
        "worker.supervise.reconciler",
        "store.jobs.jobs",
        "finetuned.cli.main",
        "contract.machine",
        "contract.recipe",
        "dataset.dataset_reader",
        "estimate.plan",
        "dataset.__main__",
        "dataset.sandbox.fork_server",
        "worker.machine.inventory",
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
        if name.startswith(("Auto", "_auto_class")) and name.endswith("from_pretrained")
    ]
    assert len(loading) > 5
    for name, given, call in loading:
        assert given.get("trust_remote_code") == "False", call
        if name.startswith(("AutoModel", "_auto_class")) and "gguf_file" not in given:
            assert given.get("use_safetensors") == "True", call


def _calls(folder: Path) -> Iterator[tuple[str, dict[str | None, str], str]]:
    """What is called, the names and values it is given, and where."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                yield ast.unparse(node.func), given, f"{file}:{node.lineno}: {ast.unparse(node)}"


@pytest.fixture(scope="module")
def structure() -> Structure:
    return read_structure(ROOT)


def test_nine_in_ten_functions_have_at_most_20_lines(structure: Structure) -> None:
    assert structure.p90_lines() <= 20


def test_function_with_many_parameters_states_a_reason(structure: Structure) -> None:
    """By a comment in its signature: `# parameters: ...`."""
    unexplained = [f"{each.place} has {each.parameters}" for each in structure.unexplained]
    assert not unexplained, "\n".join(unexplained)


def test_class_name_is_defined_once(structure: Structure) -> None:
    assert not structure.repeated_classes


def test_no_module_imports_a_test_module() -> None:
    """What two of them need is in a module of its own; benchmarks take of tests only tests.support."""
    assert [each for each in _imports("tests") if ".test_" in each] == []
    assert [each for each in _imports("benchmarks") if " tests" in each and " tests.support" not in each] == []


def _imports(folder: str) -> list[str]:
    """FILE: MODULE of every import below a folder."""
    found = []
    for file in sorted(Path(ROOT, folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.append(f"{file.name}: {node.module}")
            elif isinstance(node, ast.Import):
                found += [f"{file.name}: {each.name}" for each in node.names]
    return found
