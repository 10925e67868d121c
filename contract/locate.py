"""Finds the files that a recipe names, and nothing outside the folders that the operator allows."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contract.earlier_adapter import CONFIG
from contract.failure import FailureReason, InputError
from contract.quote import cut

# Narrower than the hub's own rule, so that nothing which walks through folders is taken for an id.
_HUB_ID = re.compile(r"(?!.*\.\.)[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)


def locate_dataset(path: str, allowed: Sequence[Path]) -> Path:
    """The file of examples, absolute. Raises InputError when it is absent or outside `allowed`."""
    found = _inside(path, allowed)
    if found is None or not found.is_file():
        raise InputError(
            FailureReason.DATASET_NOT_FOUND,
            f"dataset: no file {cut(path, 200)} on the server; looked in {', '.join(map(str, allowed))}",
            "dataset",
        )
    return found


def locate_model(model: str, models: Path, allowed: Sequence[Path]) -> Path | None:
    """The base model's folder, absolute; None for a hub id, which only a download can check.

    Raises InputError when a folder is meant and is not there, or holds no model that we load.
    """
    found = _inside(model, [models, *allowed])
    if found is None:
        if _HUB_ID.fullmatch(model):
            return None
        names = sorted(folder.name for folder in models.iterdir() if folder.is_dir()) if models.is_dir() else []
        raise InputError(
            FailureReason.MODEL_NOT_FOUND,
            f"model: no folder {cut(model, 200)} on the server; models there: {', '.join(names) or '(none)'}; "
            "a model of a hub is named org/name",
            "model",
        )
    if not (found / "config.json").is_file() or not any(found.glob("*.safetensors")):
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            f"model: {cut(model, 200)} has no config.json with *.safetensors beside it; other weight files are not "
            "loaded",
            "model",
        )
    if (found / CONFIG).exists():
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            f"model: {cut(model, 200)} has an adapter in it ({CONFIG}), which would be loaded too; give the folder of "
            "its base alone, and what a job has saved as adapter.start_from",
            "model",
        )
    return found


def _inside(path: str, folders: Sequence[Path]) -> Path | None:
    """`path` below one of `folders`, links followed; the first that exists, else None."""
    for folder in folders:
        # A name too long, a NUL in it, links that go in circles (a RuntimeError), a folder that we may not look into.
        with suppress(OSError, ValueError, RuntimeError):
            found = (folder / path).resolve()
            if found.is_relative_to(folder.resolve()) and found.exists():
                return found
    return None
