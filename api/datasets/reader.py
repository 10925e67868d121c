"""Reads files of examples, heavy ones and all that runs a template in a sandbox. What was found is kept by the file's
digest or its state, so that a file is read once."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from cachetools import LRUCache
from pydantic import ValidationError

from api.errors import TooManyRequests
from api.file_cache import FileCache
from api.model_folders import ModelFolder
from contract.dataset_format import DatasetField, DatasetFormat
from contract.method import Learned
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import ExampleCount, count_examples
from dataset.held_out import HeldOutExample
from dataset.lengths import TokenLengths
from dataset.preview import Preview
from dataset.reading.rows import is_light
from dataset.sandbox.child import DatasetSandbox, SandboxBusy
from dataset.sandbox.tasks import (
    Answer,
    CountExamples,
    FindExample,
    MeasureLengths,
    PreviewExamples,
    Task,
    TokenizerRef,
    TryExamples,
)
from storage.errors import StorageUnavailable
from store.models import Dataset

_COUNT_SECONDS = 3600.0
"""Some 60 MB a second are read."""
_LONGEST_SECONDS = 60.0
"""Of a process that measures or previews."""
_MEASURE_SECONDS = 20.0
"""Of a file that takes longer, the first examples are measured."""
_TRY_SECONDS = 45.0
_TRY_PATIENCE = 1.0
"""Seconds to wait for a free place in the sandbox."""
_MEASURING = 3
"""Counted up when the same file and tokenizer give other lengths than before."""
_KEPT = 1024


@dataclass(frozen=True)
class RowFile:
    """A file of examples, and how its rows are written."""

    name: str
    format: DatasetFormat | Literal["auto"]
    columns: dict[DatasetField, str] | None
    learned: Learned | None
    """What its rows must have, by the recipe's method; None takes whatever the first row has."""
    sha256: str | None
    """None where it has not been read."""
    open: Callable[[], AbstractContextManager[Path]]
    """The file on this machine, for as long as the context lasts. Raises InputError, StorageUnavailable."""

    @property
    def layout(self) -> dict[str, Any]:
        columns = None if self.columns is None else dict(self.columns)
        return {"name": self.name, "format": self.format, "columns": columns, "learned": self.learned}

    def at(self, path: Path) -> DatasetFile:
        return DatasetFile(path=path, name=self.name, format=self.format, columns=self.columns, learned=self.learned)


def dataset_file(dataset: Dataset, path: Path) -> DatasetFile:
    """A stored dataset whose bytes are at `path`."""
    columns, format = dataset.columns, dataset.format or "auto"
    return DatasetFile.model_validate({"path": path, "name": dataset.filename, "format": format, "columns": columns})


class RowReader:
    def __init__(self, sandbox: DatasetSandbox, largest: int, lengths: Path) -> None:
        """`largest` is in bytes; `lengths` is the folder of what was measured."""
        self._sandbox = sandbox
        self._largest = largest
        self._lengths = lengths
        self._counted: FileCache[ExampleCount] = FileCache(_KEPT)
        self._passed: LRUCache[str, None] = LRUCache(_KEPT)
        self._lock = Lock()

    def count(self, file: RowFile) -> ExampleCount:
        """Checks every row. Raises InputError for a bad one, TooManyRequests."""
        with file.open() as path:
            return self._counted.get(json.dumps(file.layout), [path], lambda: self._count(file, path))

    def _count(self, file: RowFile, path: Path) -> ExampleCount:
        if is_light(path):
            return count_examples(file.at(path), self._largest)
        # Not here: one array of JSON takes gigabytes, and what Arrow takes to decode Parquet nobody bounds.
        return self._run(CountExamples(file=file.at(path), max_bytes=self._largest), _COUNT_SECONDS)

    def try_examples(self, file: RowFile, model: ModelFolder, chat_template: str | None) -> None:
        """Has the model's template and tokenizer write the first examples. `file` has its digest. Raises InputError.
        Where nobody can try it now, the trainer finds the problem."""
        embeddings = model.headers.embedding_rows
        key = _digest(file.sha256, file.layout, str(model.path), chat_template, embeddings, model.tokenizer_version)
        with self._lock:
            if key in self._passed:
                return
        try:
            with file.open() as path:
                tokenizer = TokenizerRef(folder=model.path, chat_template=chat_template)
                task = TryExamples(file=file.at(path), tokenizer=tokenizer, embeddings=embeddings)
                self._sandbox.run(task, _TRY_SECONDS, _TRY_PATIENCE)
        except (SandboxBusy, StorageUnavailable):
            return
        with self._lock:
            self._passed[key] = None

    def measure(self, file: RowFile, model: ModelFolder, chat_template: str | None) -> TokenLengths:
        """Raises InputError, TooManyRequests."""
        options = {**file.layout, "chat_template": chat_template}
        kept = self._lengths / f"{_digest(_MEASURING, file.sha256, options, model.tokenizer_version)}.json"
        try:
            return TokenLengths.model_validate_json(kept.read_bytes())
        except (FileNotFoundError, ValidationError):
            pass
        tokenizer = TokenizerRef(folder=model.path, chat_template=chat_template)
        with file.open() as path:
            task = MeasureLengths(file=file.at(path), tokenizer=tokenizer, max_seconds=_MEASURE_SECONDS)
            found = self._run(task, _LONGEST_SECONDS)
        if file.sha256 is not None:
            _write(kept, found.model_dump_json())
        return found

    def preview(self, file: RowFile, model: ModelFolder, chat_template: str | None, **shown: int) -> Preview:
        """`shown` are max_length, offset and limit. Raises InputError, TooManyRequests."""
        tokenizer = TokenizerRef(folder=model.path, chat_template=chat_template)
        with file.open() as path:
            task = PreviewExamples.model_validate({"file": file.at(path), "tokenizer": tokenizer, **shown})
            return self._run(task, _LONGEST_SECONDS)

    def find_example(self, file: RowFile, index: int) -> HeldOutExample | None:
        """The example at `index`, from 0; None for plain text. Raises InputError, TooManyRequests."""
        with file.open() as path:
            return self._run(FindExample(file=file.at(path), index=index), _LONGEST_SECONDS).example

    def _run(self, task: Task[Answer], seconds: float) -> Answer:
        try:
            return self._sandbox.run(task, seconds)
        except SandboxBusy as error:
            message = "the service reads as many datasets as it can at once; send the request again"
            raise TooManyRequests(message, 5) from error


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    beside.write_text(text)
    beside.replace(path)
