"""The base models on the server. Their headers and tokenizers are read once, until their files change."""

import hashlib
import importlib.metadata
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from cachetools import LRUCache

from api.file_cache import FileCache
from api.jobs.turns import Turns
from contract.locate import Folders, locate_model
from contract.model.embeddings import embedding_rows
from contract.model.folder import LoadedBase, loaded_base
from contract.model.target_modules import Targets, check_adapter
from contract.recipe import Adapter
from dataset.rendering.tokenizer import MODEL_FILES, TODAY, TOKENIZER_FILES
from estimate.architecture import NotEstimated
from estimate.plan import LocalModel, adapted_base

_HEADER_FILES = ("*.json", "*.safetensors")
_MODELS_KEPT = 64
_ADAPTERS_KEPT = 64
"""For each model."""

Derived = TypeVar("Derived")


class ModelHeaders:
    """A base model's configuration and the shapes of its weights, with what adapters come to on it."""

    def __init__(self, loaded: LoadedBase, turns: Turns) -> None:
        self.loaded = loaded
        self._turns = turns
        self._targets: LRUCache[str, Targets] = LRUCache(_ADAPTERS_KEPT)
        self._bases: LRUCache[str, LocalModel] = LRUCache(_ADAPTERS_KEPT)
        self._lock = threading.Lock()

    @cached_property
    def embedding_rows(self) -> int | None:
        """Number of token ids with an embedding; None if that is not known."""
        return embedding_rows(self.loaded.shapes)

    def targets(self, adapter: Adapter, owner: str) -> Targets:
        """The modules that get LoRA. Raises InputError where the adapter does not fit the model, TooManyRequests."""

        def check() -> Targets:
            expression = isinstance(adapter.target_modules, str) and adapter.target_modules != "all-linear"
            with self._turns.of(owner) if expression else nullcontext():
                return check_adapter(adapter, self.loaded.shapes, self.loaded.kind)

        return self._derive(self._targets, adapter, check)

    def base(self, adapter: Adapter, earlier: Path | None) -> LocalModel:
        """What an estimate needs; `earlier` is the folder of adapter.start_from. Raises Unknown."""
        if earlier is not None:
            return adapted_base(self.loaded, adapter, earlier)
        return self._derive(self._bases, adapter, lambda: adapted_base(self.loaded, adapter, None))

    def _derive(self, kept: LRUCache[str, Derived], adapter: Adapter, derive: Callable[[], Derived]) -> Derived:
        key = adapter.model_dump_json()
        with self._lock:
            if key in kept:
                return kept[key]
        found = derive()
        with self._lock:
            kept[key] = found
        return found


class ModelFolder:
    """A base model's folder, which was there when it was found."""

    def __init__(self, path: Path, folders: "ModelFolders") -> None:
        self.path = path
        self._folders = folders

    @cached_property
    def headers(self) -> ModelHeaders:
        """Raises InputError for files that cannot be loaded."""
        return self._folders.headers(self.path)

    @cached_property
    def tokenizer_version(self) -> str:
        return self._folders.tokenizer_version(self.path)


class ModelFolders:
    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._headers: FileCache[ModelHeaders] = FileCache(_MODELS_KEPT)
        self._tokenizers: FileCache[str] = FileCache(_MODELS_KEPT)
        self._turns = Turns(most_waiting=7, patience=20.0)

    def find(self, model: str) -> ModelFolder | None:
        """None for the name of a hub's model. Raises InputError."""
        path = locate_model(model, self._folders)
        return None if path is None else ModelFolder(path, self)

    def headers(self, path: Path) -> ModelHeaders:
        """Raises InputError for files that cannot be loaded."""
        files = _matching(path, _HEADER_FILES)
        return self._headers.get(path, files, lambda: ModelHeaders(loaded_base(path), self._turns))

    def tokenizer_version(self, path: Path) -> str:
        """Tells tokenizers and templates apart by all that they are read from: the files' bytes, the libraries, and the
        date that templates write."""
        files = _matching(path, (*MODEL_FILES, *TOKENIZER_FILES))
        return self._tokenizers.get(path, files, lambda: _digest(path, files))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({found for pattern in patterns for found in folder.glob(pattern)})


def _digest(folder: Path, files: Sequence[Path]) -> str:
    lines = [str(TODAY), *(f"{name} {importlib.metadata.version(name)}" for name in ("jinja2", "tokenizers"))]
    for path in files:
        if path.exists():  # a link to nothing is not read
            with path.open("rb") as file:
                lines.append(f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return "\n".join(lines)


def base_of(model: ModelFolder | None, name: str, adapter: Adapter, earlier: Path | None) -> LocalModel | str:
    """What an estimate needs of the model that a recipe names, or why that is not known."""
    if model is None:
        return f"{name} is not on the server, and its files tell what it takes"
    try:
        return model.headers.base(adapter, earlier)
    except NotEstimated as error:
        return str(error)
