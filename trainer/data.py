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

from contract.failure import FailureReason, InputError, told_of
from contract.order import split
from contract.recipe import Dataset, Recipe
from dataset.document import Document
from dataset.files import Hash
from dataset.read import digest, read_examples
from dataset.tokenise import encode
from trainer.token_cache import cached
from trainer.tokenizer import load_tokenizer
from trainer.tokens import Documents, Tokens, cut, flatten

_RENDERING = 1
"""Counted up when the same file, read with the same tokenizer and settings, becomes other tokens than before."""
_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class Data:
    train: Documents
    evaluation: Documents
    truncated: int
    """Examples cut at max_length that are still of use."""
    dropped: int
    """Examples without a supervised token, left out."""


def load_data(recipe: Recipe, cache: Path) -> Data:
    """Reads, renders and tokenises, or takes from the folder `cache` what was tokenised before; cuts and splits. Raises
    InputError for everything that is wrong with the datasets, or with the model's tokenizer."""
    tokenizer = load_tokenizer(recipe)
    max_length = recipe.batch.max_length
    usable = _Usable(_tokenise_once(tokenizer, recipe.dataset, cache), max_length, "dataset")
    if recipe.evaluation.dataset is None:
        train, held_out = split(recipe.seed, usable.count, recipe.evaluation.share)
        return Data(usable.documents(train), usable.documents(held_out), usable.truncated, usable.dropped)
    with told_of("evaluation.dataset"):
        tokens = _tokenise_once(tokenizer, recipe.evaluation.dataset, cache)
    other = _Usable(tokens, max_length, "evaluation.dataset")
    return Data(
        train=usable.documents(range(usable.count)),
        evaluation=other.documents(range(other.count)),
        truncated=usable.truncated + other.truncated,
        dropped=usable.dropped + other.dropped,
    )


class _Usable:
    """The examples of a file that have something to learn within max_length."""

    def __init__(self, tokens: Tokens, max_length: int, param: str) -> None:
        """Raises InputError where there is none; `param` is the field of the recipe that names the file."""
        self._tokens = tokens
        self._lengths, self._targets = cut(tokens, max_length)
        examples = len(tokens.examples) - 1
        self._example = torch.repeat_interleave(torch.arange(examples), tokens.examples.diff())
        self._usable = self._example[self._targets > 0].unique()
        if not len(self._usable):
            raise InputError(
                FailureReason.DATASET_INVALID,
                f"{param}: none of its {examples} examples has an answer in batch.max_length = {max_length} tokens; "
                "raise it or shorten them",
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


def _tokenise_once(tokenizer: Any, dataset: Dataset, cache: Path) -> Tokens:
    """The file's tokens, if it is the one that the job was taken with. That is looked at each time: hashing a file is
    some hundred times as fast as tokenising it."""
    path = Path(dataset.path)
    try:
        found = digest(path)
    except OSError as error:
        raise InputError(
            FailureReason.DATASET_INVALID, f"the file {path.name} cannot be read: {error.strerror}", "dataset"
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

    return cached(cache, _key(tokenizer, dataset, found), tokenise)


def _check_unchanged(dataset: Dataset, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            FailureReason.DATASET_CHANGED,
            f"dataset: {Path(dataset.path).name} has changed since the job was taken; submit it again to train on the "
            "new content",
            "dataset",
        )


def _key(tokenizer: Any, dataset: Dataset, sha256: str) -> str:
    """A digest of all that the tokens come from. Neither max_length nor the split are in it: whole documents are kept,
    to be cut by each job in its way."""
    parts = {
        "rendering": _RENDERING,
        "versions": [importlib.metadata.version(name) for name in ("transformers", "tokenizers")],
        "dataset": sha256,
        # By its name a file is known to be CSV.
        "suffixes": [suffix.lower() for suffix in Path(dataset.path).suffixes],
        "format": dataset.format,
        "columns": dataset.columns,
        "tokenizer": type(tokenizer).__name__,
        "vocabulary": tokenizer.backend_tokenizer.to_str(),
        "special_tokens": tokenizer.special_tokens_map,
        "chat_template": tokenizer.chat_template,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _encode_file(tokenizer: Any, dataset: Dataset, sha256: Hash) -> Iterator[list[Document]]:
    """The documents of each example of the file, a part of it at a time: as text and offsets they take many times the
    memory that they take as tokens."""
    examples = read_examples(Path(dataset.path), dataset.format, dataset.columns, sha256=sha256)
    while some := list(itertools.islice(examples, _EXAMPLES_AT_ONCE)):
        yield from encode(tokenizer, some)
