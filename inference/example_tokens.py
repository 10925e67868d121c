"""Reads the examples of an evaluation, with the tokens that training would have."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from contract.failure import FailureCode, InputError
from contract.recipe import DatasetSource
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import file_sha256, read_examples
from dataset.document import Document, truncate_document
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode


@dataclass(frozen=True)
class ExampleTokens:
    number: int
    """Position in the file, from 1."""
    documents: list[Document]
    """Cut as in training; none where nothing to learn remains."""


def read_example_tokens(
    tokenizer: FolderTokenizer, source: DatasetSource, max_length: int, limit: int
) -> Iterator[ExampleTokens]:
    """The first `limit` examples. Raises InputError for a file that is gone or has changed, and for a bad row."""
    path = Path(source.path)
    name = source.filename or path.name
    file = DatasetFile(path=path, name=name, format=source.format, columns=source.columns, learned="answers")
    _check_unchanged(path, name, source.sha256)
    for number, example in enumerate(islice(read_examples(file), limit), 1):
        ((*documents,),) = encode(tokenizer, [example])
        cut = [truncate_document(document, max_length) for document in documents]
        yield ExampleTokens(number, [document for document in cut if document.targets])


def _check_unchanged(path: Path, name: str, expected: str | None) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        message = f"dataset: the file {name} cannot be read: {error.strerror}"
        raise InputError(FailureCode.DATASET_NOT_FOUND, message, "dataset") from error
    if found != expected:
        message = f"dataset: {name} has changed since the evaluation was accepted; request it again"
        raise InputError(FailureCode.DATASET_CHANGED, message, "dataset")
