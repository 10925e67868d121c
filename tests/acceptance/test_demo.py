"""The demo, as a newcomer runs it; PostgreSQL, Valkey, API and worker are its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="finetuned-demo-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_demo_model_answers_and_no_process_is_left(home: Path) -> None:
    command = [sys.executable, "-m", "finetuned", "demo", "--exit", "--home", str(home), "--port", str(free_port())]
    environment = {**os.environ, "COLUMNS": "200", "FINETUNED_MARK": str(home)}
    demo = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    base, adapted = answers(demo.stdout, "Which command starts the whole service on my machine?")
    assert "finetuned up" in adapted
    assert "finetuned up" not in base
    assert "none of its processes is left" in demo.stdout
    assert with_mark(str(home)) == []


def answers(output: str, question: str) -> tuple[str, str]:
    """The two columns of the panel below a question."""
    _, header, *lines = output[output.index(question) :].splitlines()
    middle = header.index("with the adapter")
    panel = lines[: next(index for index, line in enumerate(lines) if "╰" in line)]
    return " ".join(line[:middle] for line in panel), " ".join(line[middle:] for line in panel)


def with_mark(mark: str) -> list[int]:
    """The processes that have inherited the mark in their environment, or the home folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:  # it has gone meanwhile, or is none of ours to read
                continue
            if mark.encode() in text:
                found.append(int(entry.name))
    return found
