"""Finds what wheels ship besides Python code, without running any of it."""

import importlib.util
from pathlib import Path

from finetuned.stack.process import StackError


def wheel_folder(package: str) -> Path:
    """The folder of an installed package. Raises StackError when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StackError(f"{package.replace('_', '-')} is not installed; scripts/setup installs it")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
