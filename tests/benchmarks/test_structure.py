import re
from pathlib import Path

from benchmarks.structure import MOST_PARAMETERS, figures, read_structure

ROOT = Path(__file__).parents[2]
RUN_ELSEWHERE = {"demo", "gpu_check", "trainer"}
"""tests/acceptance/test_demo.py runs the demo, tests/benchmarks/gpu_check rehearses the check of a GPU; the trainer's
rivals need environments of their own."""
CODE = """
class Twice:
    def many(self, a, b, c, d, e, *, f):
        pass

    def enough(self, a, b, c, d, e):
        pass


def explained(  # parameters: each is a column
    a, b, c, d, e, f
):
    def inner():
        pass

    return inner
"""


def checkout(root: Path) -> Path:
    for name, text in {
        "store/__init__.py": "",
        "store/jobs.py": CODE,
        "worker/__init__.py": "",
        "worker/client.py": "class Twice:\n    pass\n",
        "tests/__init__.py": "",
        "tests/test_jobs.py": "def test_one():\n    pass\n\n\ndef helper(a, b, c, d, e, f):\n    pass\n",
        "README.md": "# A\n\nB\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_functions_are_counted_outside_of_tests(tmp_path: Path) -> None:
    found = read_structure(checkout(tmp_path))
    assert sorted(each.place for each in found.functions) == [
        "store/jobs.py: enough",
        "store/jobs.py: explained",
        "store/jobs.py: inner",
        "store/jobs.py: many",
    ]
    assert found.p90_lines() == 7


def test_many_parameters_need_a_reason(tmp_path: Path) -> None:
    found = read_structure(checkout(tmp_path))
    assert [each.place for each in found.unexplained] == ["store/jobs.py: many"]
    assert figures(found)[f"functions with more than {MOST_PARAMETERS} parameters"] == 2


def test_class_in_two_files_is_reported(tmp_path: Path) -> None:
    found = read_structure(checkout(tmp_path))
    assert found.repeated_classes == {"Twice": ["store/jobs.py", "worker/client.py"]}
    assert (found.tests, found.readme_lines) == (1, 3)


def test_ci_runs_every_benchmark() -> None:
    modules = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "benchmarks").glob("*/__main__.py")]
    programs = {each.stem for each in modules if 'if __name__ == "__main__"' in each.read_text()}
    programs |= {each.parent.name for each in modules if each.stem == "__main__"}
    ci = (ROOT / ".ci" / "run").read_text()
    (listed,) = re.findall(r"^benchmarks=\((.*?)\)", ci, re.DOTALL | re.MULTILINE)
    run = {*listed.split(), *re.findall(r"-m benchmarks\.(\w+)", ci)}
    assert run == programs - {"__main__"} - RUN_ELSEWHERE
