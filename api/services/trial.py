"""Refuses a recipe whose model cannot read the first examples of its dataset."""

from collections import OrderedDict
from pathlib import Path

from api.settings import ApiSettings
from api.tokenizer_version import tokenizer_version
from contract.model.loaded_names import Shapes
from contract.recipe import Dataset
from dataset.sandbox import Busy, DatasetSandbox
from estimate.architecture import embedding_rows
from storage.errors import StorageUnavailable
from store import datasets
from store.session import Sessions

_LONGEST = 45.0  # seconds
_PATIENCE = 1.0  # seconds, for a place among those that read datasets
_MOST_KEPT = 1024
_passed: OrderedDict[str, None] = OrderedDict()
"""What was tried and had no problem. A process takes half a second to try it, and people post the same pair often."""


def try_dataset(
    sessions: Sessions, settings: ApiSettings, sandbox: DatasetSandbox, model: Path, shapes: Shapes, given: Dataset
) -> None:
    """`given` has its digest. Raises InputError. Where nobody can try it now, the trainer finds the problem."""
    if not (model / "tokenizer.json").is_file():
        return
    options = {
        "name": given.filename or Path(given.path).name,
        "format": given.format,
        "columns": given.columns,
        "model": str(model),
        "chat_template": given.chat_template,
        "embeddings": embedding_rows(shapes),
    }
    key = f"{given.sha256} {given.path} {options}\n{tokenizer_version(model)}"
    if key in _passed:
        return
    try:
        with datasets.find_file(sessions, settings, given.path) as path:
            sandbox.run("try", _LONGEST, _PATIENCE, path=str(path), **options)
    except (Busy, StorageUnavailable):
        return
    _passed[key] = None
    if len(_passed) > _MOST_KEPT:
        _passed.popitem(last=False)
