"""GPUs that the trainer's torch cannot use."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_nvml import Have, stand_in
from worker.machine.cuda import read_versions, unusable_reason


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Have:
    return stand_in(monkeypatch, tmp_path)


def install_torch(monkeypatch: pytest.MonkeyPatch, folder: Path, cuda: str | None) -> None:
    """The files of a torch that is found before the real one, and cannot be imported."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise AssertionError('the worker must not import torch')")
    version = f"from typing import Optional\n__version__ = '2.13.0+x'\ncuda: Optional[str] = {cuda!r}\nhip = None\n"
    (folder / "torch" / "version.py").write_text(version)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("cuda", "driver", "words"),
    [
        ("13.0", "580.65.06", None),
        ("13.2", "595.10", None),
        ("13.0", "575.57.08", "the driver 575.57.08 is too old for the trainer's torch 2.13.0+x, which is built for"),
        ("12.8", "525.60.13", None),
        ("12.8", "470.256.02", "needs a driver 525 or newer"),
        ("14.0", "580.65.06", None),  # nothing is known of it
        (None, "580.65.06", "is built without CUDA"),
    ],
)
def test_driver_must_be_new_enough_for_torch(
    have: Have, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, driver: str, words: str | None
) -> None:
    have({"uuid": "GPU-a"}, driver=driver)
    install_torch(monkeypatch, tmp_path, cuda)
    reason = unusable_reason()
    assert reason is None if words is None else words in str(reason)


def test_installed_torch_is_read_without_import() -> None:
    spec = importlib.util.find_spec("torch")
    assert isinstance(spec, importlib.machinery.ModuleSpec)
    assert spec.origin is not None
    code = "import torch; print(torch.__version__, torch.version.cuda)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    version, cuda = read_versions(Path(spec.origin).with_name("version.py"))
    assert done.stdout.strip() == f"{version} {cuda}"
