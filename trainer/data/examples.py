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

from contract.failure import FailureCode, InputError, told_of
from contract.order import split
from contract.recipe import Dataset, Recipe
from dataset.document import Document
from dataset.read import digest, read_examples
from dataset.reading.files import Hash
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import TODAY
from trainer.data.token_cache import cached
from trainer.data.tokenizer import load_tokenizer
from trainer.data.tokens import Documents, Tokens, cut, flatten, last_learned
from trainer.model.base_model import most_positions

_RENDERING = 3
"""Counted up when the same file, read with the same tokenizer and settings, becomes other tokens than before."""
_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class Data:
    train: Documents
    evaluation: Documents
    max_length: int
    """Tokens of an example: batch.max_length, or fewer where the model has no more positions."""
    digest: str
    """Of what both come from, and of how it was cut and split."""
    truncated: int
    """Examples cut at max_length that are still of use."""
    dropped: int
    """Examples without a supervised token, left out."""
    ends: list[int]
    """Special tokens that end the learned answers, uncut: generation stops there."""


def load_data(recipe: Recipe, cache: Path) -> Data:
    """Reads, renders and tokenises, or takes from the folder `cache` what was tokenised before; cuts and splits. Raises
    InputError for everything that is wrong with the datasets, or with the model's tokenizer."""
    tokenizer = load_tokenizer(recipe)
    max_length = min(recipe.batch.max_length, most_positions(recipe.model) or recipe.batch.max_length)
    limit = words_of_length(recipe, max_length)
    tokens, source = _tokenise_once(tokenizer, recipe.dataset, cache)
    usable = _Usable(tokens, max_length, "dataset", limit)
    # "share": earlier training checkpoints have the digest with this word in it, and shall still fit.
    parts = {"train": source, "max_length": max_length, "share": recipe.evaluation.fraction}
    if recipe.evaluation.dataset is None:
        train, held_out = split(recipe.seed, usable.count, recipe.evaluation.fraction)
        documents = usable.documents(train), usable.documents(held_out)
        ends = _ends(tokenizer, tokens)
        return Data(*documents, max_length, _digest(parts), usable.truncated, usable.dropped, ends)
    with told_of("evaluation.dataset"):
        evaluated, source = _tokenise_once(tokenizer, recipe.evaluation.dataset, cache)
    other = _Usable(evaluated, max_length, "evaluation.dataset", limit)
    return Data(
        train=usable.documents(range(usable.count)),
        evaluation=other.documents(range(other.count)),
        max_length=max_length,
        digest=_digest(parts | {"evaluation": source}),
        truncated=usable.truncated + other.truncated,
        dropped=usable.dropped + other.dropped,
        ends=_ends(tokenizer, tokens),
    )


def _ends(tokenizer: FolderTokenizer, tokens: Tokens) -> list[int]:
    return sorted(last_learned(tokens) & set(tokenizer.all_special_ids))


def words_of_length(recipe: Recipe, max_length: int) -> str:
    """Where the examples are cut, for people."""
    if max_length < recipe.batch.max_length:
        return f"the {max_length} positions that the model has"
    return f"batch.max_length = {max_length} tokens"


class _Usable:
    """The examples of a file that have something to learn within max_length."""

    def __init__(self, tokens: Tokens, max_length: int, param: str, limit: str) -> None:
        """Raises InputError where there is none; `param` is the field of the recipe that names the file, and `limit`
        what max_length is."""
        self._tokens = tokens
        self._lengths, self._targets = cut(tokens, max_length)
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

    def documents(self, chosen: Sequence[int]) -> Documents:
        """Of some of them, by their number among those of use."""
        is_chosen = torch.isin(self._example, self._usable[torch.tensor(chosen, dtype=torch.int64)])
        rows = (is_chosen & (self._targets > 0)).nonzero().flatten()
        return Documents(self._tokens, rows, self._lengths[rows], self._targets[rows])


def _tokenise_once(tokenizer: FolderTokenizer, dataset: Dataset, cache: Path) -> tuple[Tokens, dict[str, Any]]:
    """The file's tokens, if it is the one that the job was taken with, and what they come from. The file is looked at
    each time: hashing it is some hundred times as fast as tokenising it."""
    path = Path(dataset.path)
    try:
        found = digest(path)
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
            # It may have changed in the meantime, and that is then what to tell.
            with suppress(OSError):
                _check_unchanged(dataset, digest(path), found)
            raise
        _check_unchanged(dataset, sha256.hexdigest(), found)
        return tokens

    source = _source(tokenizer, dataset, found)
    return cached(cache, _key(source), tokenise), source


def _check_unchanged(dataset: Dataset, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            FailureCode.DATASET_CHANGED,
            f"dataset: {Path(dataset.path).name} has changed since the job was taken; submit it again to train on the "
            "new content",
            "dataset",
        )


def _key(source: dict[str, Any]) -> str:
    """Of the tokens in the cache. Neither max_length nor the split are in it: whole documents are kept, to be cut by
    each job in its way."""
    versions = {name: importlib.metadata.version(name) for name in ("jinja2", "tokenizers")}
    return _digest(source | {"rendering": _RENDERING, "versions": versions, "today": TODAY.isoformat()})


def _source(tokenizer: FolderTokenizer, dataset: Dataset, sha256: str) -> dict[str, Any]:
    """What the tokens come from, but for the programs that make them."""
    return {
        "dataset": sha256,
        # CSV and plain text are known by the name.
        "suffixes": [suffix.lower() for suffix in Path(dataset.filename or dataset.path).suffixes],
        "reading": dataset.model_dump(mode="json", exclude={"path", "filename", "sha256"}),
        "tokenizer": tokenizer.parts,
    }


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _encode_file(tokenizer: FolderTokenizer, dataset: Dataset, sha256: Hash) -> Iterator[list[Document]]:
    """The documents of each example of the file, a part of it at a time: as text and offsets they take many times the
    memory that they take as tokens."""
    path = Path(dataset.path)
    examples = read_examples(path, dataset.format, dataset.columns, sha256=sha256, name=dataset.filename)
    while some := list(itertools.islice(examples, _EXAMPLES_AT_ONCE)):
        yield from encode(tokenizer, some)
