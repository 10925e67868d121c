"""What importing the trainer does, and what its commands do first."""

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer.trainer_process import Outcome
from trainer.environment import lasting_imports

UNCHANGED = """
import logging, os, sys
before = dict(os.environ)
import trainer, trainer.__main__, trainer.tools.answer, trainer.tools.import_gguf, trainer.tools.export
assert dict(os.environ) == before
assert "kernels" not in sys.modules and "bitsandbytes" not in sys.modules and "torch" not in sys.modules
assert not logging.getLogger("bitsandbytes.backends.cpu.ops").filters
"""


def test_import_of_trainer_changes_nothing() -> None:
    subprocess.run([sys.executable, "-c", UNCHANGED], check=True, timeout=60)


@pytest.mark.parametrize(
    "command", ["trainer", "trainer.tools.answer", "trainer.tools.import_gguf", "trainer.tools.export"]
)
def test_command_hides_kernels_before_its_work(command: str) -> None:
    """A missing argument ends each command, so only what comes before the work has run."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}']\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert sys.modules['kernels'] is None and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)


UNUSED = {
    "bitsandbytes.nn",
    "deepspeed",
    "liger_kernel",
    "networkx",
    "torch._functorch.aot_autograd",
    "torch._inductor.compile_fx",
    "trainer.engines.fsdp",
    "trainer.model.compiling",
}
"""What no plain LoRA run uses. Most of these take a second or more to import."""


def test_plain_run_imports_no_more_than_it_uses(
    run_trainer: Callable[..., Outcome], recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    outcome = run_trainer(recipe | {"schedule": {"max_steps": 1}})
    assert outcome.exit_code == 0, outcome.output
    imported = {line.rpartition("|")[2].strip() for line in outcome.output.splitlines() if line.startswith("import ")}
    assert "peft" in imported
    assert imported.isdisjoint(UNUSED), imported & UNUSED


def test_garbage_is_never_sought_in_what_imports_create() -> None:
    frozen = gc.get_freeze_count()
    with lasting_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
