"""From a file of examples to token ids, with the assistant's tokens marked as the ones to learn."""

import hashlib
import importlib.metadata
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contract.failure import FailureCode, InputError, dataset_errors_as
from contract.order import split_rows
from contract.recipe import DatasetSource, Recipe
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import file_sha256, read_examples
from dataset.document import Document
from dataset.reading.rows import Hash
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import TODAY
from trainer.data.token_cache import cached_tokens
from trainer.data.tokenizer import load_tokenizer
from trainer.data.tokens import TokenDocuments, Tokens, final_supervised_ids, flatten, truncate_documents
from trainer.model.base_model import max_positions

_RENDERING = 3
"""Raised when the same file, with the same tokenizer and settings, gives different tokens than before."""
_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class TrainingData:
    train: TokenDocuments
    evaluation: TokenDocuments
    max_length: int
    """Maximum tokens of an example: batch.max_length, or the model's positions if it has fewer."""
    digest: str
    """Digest of the sources of both, and of how they were cut and split."""
    truncated: int
    """Number of examples that were cut at max_length and can still be learned."""
    dropped: int
    """Number of examples without a supervised token, which are left out."""
    ends: list[int]
    """Special tokens that end the learned answers before any cut. Generation stops there."""


def load_data(recipe: Recipe, cache: Path) -> TrainingData:
    """Reads, renders and tokenises the datasets, or takes the tokens from the folder `cache`; then cuts and splits.
    Raises InputError for any fault of the datasets or of the model's tokenizer."""
    tokenizer = load_tokenizer(recipe)
    max_length = min(recipe.batch.max_length, max_positions(recipe.model) or recipe.batch.max_length)
    limit = describe_length_limit(recipe, max_length)
    tokens, source = _tokenise_once(tokenizer, recipe.dataset, cache)
    usable = _UsableExamples(tokens, max_length, "dataset", limit)
    # "share": earlier training checkpoints have the digest with this word in it, and shall still fit.
    parts = {"train": source, "max_length": max_length, "share": recipe.evaluation.fraction}
    if recipe.evaluation.dataset is None:
        train, held_out = split_rows(recipe.seed, usable.count, recipe.evaluation.fraction)
        documents = usable.documents(train), usable.documents(held_out)
        ends = _ends(tokenizer, tokens)
        return TrainingData(*documents, max_length, _digest(parts), usable.truncated, usable.dropped, ends)
    with dataset_errors_as("evaluation.dataset"):
        evaluated, source = _tokenise_once(tokenizer, recipe.evaluation.dataset, cache)
    other = _UsableExamples(evaluated, max_length, "evaluation.dataset", limit)
    return TrainingData(
        train=usable.documents(range(usable.count)),
        evaluation=other.documents(range(other.count)),
        max_length=max_length,
        digest=_digest(parts | {"evaluation": source}),
        truncated=usable.truncated + other.truncated,
        dropped=usable.dropped + other.dropped,
        ends=_ends(tokenizer, tokens),
    )


def _ends(tokenizer: FolderTokenizer, tokens: Tokens) -> list[int]:
    return sorted(final_supervised_ids(tokens) & set(tokenizer.all_special_ids))


def describe_length_limit(recipe: Recipe, max_length: int) -> str:
    """The limit at which examples are cut, for people."""
    if max_length < recipe.batch.max_length:
        return f"the {max_length} positions that the model has"
    return f"batch.max_length = {max_length} tokens"


class _UsableExamples:
    """The examples of a file with something to learn within max_length."""

    def __init__(self, tokens: Tokens, max_length: int, param: str, limit: str) -> None:
        """Raises InputError if there is none. `param` is the recipe's field that names the file, and `limit` describes
        max_length."""
        self._tokens = tokens
        self._lengths, self._targets = truncate_documents(tokens, max_length)
        examples = len(tokens.examples) - 1
        self._example = torch.repeat_interleave(torch.arange(examples), tokens.examples.diff())
        self._usable = self._example[self._targets > 0].unique()
        if not len(self._usable):
            raise InputError(
                FailureCode.DATASET_INVALID,
                f"{param}: none of its {examples} examples has an answer in {limit}; raise it or shorten them",
                "batch.max_length",
            )
        self.count = len(self._usable)
        too_long = self._example[tokens.documents.diff() > max_length].unique()
        self.truncated = int(torch.isin(too_long, self._usable).sum())
        self.dropped = examples - self.count

    def documents(self, chosen: Sequence[int]) -> TokenDocuments:
        """The documents of some of these examples, given by their number among them."""
        is_chosen = torch.isin(self._example, self._usable[torch.tensor(chosen, dtype=torch.int64)])
        rows = (is_chosen & (self._targets > 0)).nonzero().flatten()
        return TokenDocuments(self._tokens, rows, self._lengths[rows], self._targets[rows])


def _tokenise_once(tokenizer: FolderTokenizer, dataset: DatasetSource, cache: Path) -> tuple[Tokens, dict[str, Any]]:
    """The file's tokens and their sources, if the file is unchanged since the job was accepted. The file is hashed each
    time, which is some hundred times as fast as tokenising it."""
    path = Path(dataset.path)
    try:
        found = file_sha256(path)
    except OSError as error:
        raise InputError(
            FailureCode.DATASET_INVALID, f"the file {path.name} cannot be read: {error.strerror}", "dataset"
        ) from error
    _check_unchanged(dataset, found, dataset.sha256)

    def tokenise() -> Tokens:
        sha256 = hashlib.sha256()
        try:
            tokens = flatten(_encode_file(tokenizer, dataset, sha256))
        except InputError:
            # If the file has changed meanwhile, that is the error to report.
            with suppress(OSError):
                _check_unchanged(dataset, file_sha256(path), found)
            raise
        _check_unchanged(dataset, sha256.hexdigest(), found)
        return tokens

    source = _source(tokenizer, dataset, found)
    return cached_tokens(cache, _key(source), tokenise), source


def _check_unchanged(dataset: DatasetSource, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            FailureCode.DATASET_CHANGED,
            f"dataset: {Path(dataset.path).name} has changed since the job was accepted; submit it again to train on "
            "the new content",
            "dataset",
        )


def _key(source: dict[str, Any]) -> str:
    """Name of the tokens in the cache. It includes neither max_length nor the split, since whole documents are kept and
    each job cuts them."""
    versions = {name: importlib.metadata.version(name) for name in ("jinja2", "tokenizers")}
    return _digest(source | {"rendering": _RENDERING, "versions": versions, "today": TODAY.isoformat()})


def _source(tokenizer: FolderTokenizer, dataset: DatasetSource, sha256: str) -> dict[str, Any]:
    """Everything that determines the tokens, apart from the programs."""
    return {
        "dataset": sha256,
        # CSV and plain text are recognised by the name.
        "suffixes": [suffix.lower() for suffix in Path(dataset.filename or dataset.path).suffixes],
        "reading": dataset.model_dump(mode="json", exclude={"path", "filename", "sha256"}),
        "tokenizer": tokenizer.parts,
    }


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _encode_file(tokenizer: FolderTokenizer, dataset: DatasetSource, sha256: Hash) -> Iterator[list[Document]]:
    """The documents of each example of the file, read in batches: text and offsets take many times the memory of
    tokens."""
    path = Path(dataset.path)
    file = DatasetFile(path=path, name=dataset.filename or path.name, format=dataset.format, columns=dataset.columns)
    examples = read_examples(file, sha256=sha256)
    while some := list(itertools.islice(examples, _EXAMPLES_AT_ONCE)):
        yield from encode(tokenizer, some)
