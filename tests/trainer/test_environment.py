"""What importing the trainer does, and what its commands do first."""

import subprocess
import sys

import pytest

UNCHANGED = """
import logging, os, sys
before = dict(os.environ)
import trainer, trainer.__main__, trainer.tools.answer, trainer.tools.import_gguf, trainer.tools.merge
assert dict(os.environ) == before
assert "kernels" not in sys.modules and "bitsandbytes" not in sys.modules and "torch" not in sys.modules
assert not logging.getLogger("bitsandbytes.backends.cpu.ops").filters
"""


def test_import_of_trainer_changes_nothing() -> None:
    subprocess.run([sys.executable, "-c", UNCHANGED], check=True, timeout=60)


@pytest.mark.parametrize(
    "command", ["trainer", "trainer.tools.answer", "trainer.tools.import_gguf", "trainer.tools.merge"]
)
def test_command_hides_kernels_before_its_work(command: str) -> None:
    """An argument error ends each command, so only what comes before the work has run."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '/nowhere'] + ['/nowhere/out'] * ('gguf' in '{command}') + ['why'] * ('answer' in "
        f"'{command}')\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__')\n"
        "except BaseException:\n"
        "    pass\n"
        "assert sys.modules['kernels'] is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)
