"""A folder of log probabilities before training. Jobs on the same data and model compute them once, and one that was
stopped meanwhile continues where it was."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from contract.model.config import read_object
from contract.model.weight_files import weight_files
from contract.recipe import Recipe

_KEPT = 64
"""Data sets and models of which there are log probabilities; those used least recently are dropped."""


class ReferenceCache:
    def __init__(self, folder: Path, key: str) -> None:
        """`key` is 64 hex digits: a digest of everything that the values depend on."""
        self._folder = folder / "reference" / key
        self._key = key

    def read(self, part: str) -> torch.Tensor | None:
        """A part that was written before; None if there is none, or a damaged one."""
        try:
            with safe_open(self._file(part), framework="pt") as file:
                if (file.metadata() or {}).get("key") != self._key:
                    return None
                values: torch.Tensor = file.get_tensor("log_probabilities")
        except (FileNotFoundError, SafetensorError):
            return None
        # Another process may just have dropped it.
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._folder)
        return values

    def write(self, part: str, values: torch.Tensor) -> None:
        """Complete or absent, for other processes. Lost in a power cut, it is computed again. Drops the folders that
        were used least recently."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as beside:
            pass
        try:
            save_file({"log_probabilities": values}, beside.name, metadata={"key": self._key})
            os.replace(beside.name, self._file(part))
            self._drop_least_recently_used()
        except BaseException:
            Path(beside.name).unlink(missing_ok=True)
            raise

    def _drop_least_recently_used(self) -> None:
        folders = sorted(self._folder.parent.iterdir(), key=_used, reverse=True)
        for old in folders[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.safetensors"


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has dropped it
        return 0.0


def model_digest(recipe: Recipe, folder: Path) -> str:
    """A digest of what decides the model's answers before training: the base's files, by their names, sizes and times,
    and an earlier adapter's content."""
    config = read_object(folder / "config.json")
    files = [file.resolve() for file in weight_files(folder, config)]
    start = recipe.adapter.start_from
    parts = {
        "config": config,
        "weights": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        "adapter": recipe.adapter.model_dump(mode="json", exclude={"start_from", "dropout"}),
        "start_from": None if start is None else _digest_of_files(Path(start)),
        "seed": recipe.seed,
        "numbers": [recipe.precision, recipe.base_bits],
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
    }
    return digest(parts)


def _digest_of_files(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("adapter_*"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
