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
from contract.method import Learned
from contract.order import split_rows
from contract.recipe import DatasetSource, Recipe
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import file_sha256, read_examples
from dataset.document import Document
from dataset.example import RatedAnswer
from dataset.reading.rows import Hash
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import TODAY
from trainer.data.compared import TokenPairs, TokenRatings
from trainer.data.token_cache import cached_tokens
from trainer.data.tokenizer import load_tokenizer
from trainer.data.tokens import TokenDocuments, Tokens, final_supervised_ids, flatten, truncate_documents
from trainer.model.base_model import max_positions

_RENDERING = 3
"""Raised when the same file, with the same tokenizer and settings, gives different tokens than before."""
_EXAMPLES_AT_ONCE = 1024


_SHOWN = 5

Items = TokenDocuments | TokenPairs | TokenRatings


@dataclass(frozen=True)
class TrainingData:
    train: Items
    evaluation: Items
    max_length: int
    """Maximum tokens of an example: batch.max_length, or the model's positions if it has fewer."""
    digest: str
    """Digest of the tokens of both, and of how they were cut and split."""
    truncated: int
    """Number of examples that were cut at max_length and can still be learned."""
    dropped: int
    """Number of examples that are left out: those without a supervised token, or with one answer of two."""
    dropped_rows: list[int]
    """The first of them by their number in the file of training examples, from 1."""
    ends: list[int]
    """Special tokens that end the learned answers before any cut. Generation stops there."""

    @property
    def reference(self) -> dict[str, torch.Tensor]:
        """Log probabilities before training [items, 2] of both, for a method that compares with them."""
        return {"train": self.train.reference, "evaluation": self.evaluation.reference}


def load_data(recipe: Recipe, cache: Path) -> TrainingData:
    """Reads, renders and tokenises the datasets, or takes the tokens from the folder `cache`; then cuts and splits.
    Raises InputError for any fault of the datasets or of the model's tokenizer."""
    tokenizer = load_tokenizer(recipe)
    max_length = min(recipe.batch.max_length, max_positions(recipe.model) or recipe.batch.max_length)
    limit = describe_length_limit(recipe, max_length)
    learned = recipe.method.learns
    tokens = _tokenise_once(tokenizer, recipe.dataset, learned, cache)
    usable = _UsableExamples(tokens, learned, max_length, ("dataset", limit))
    parts = {"train": tokens.digest, "max_length": max_length}
    if recipe.evaluation.dataset is None:
        if recipe.evaluation.fraction:
            parts |= {"fraction": recipe.evaluation.fraction, "seed": recipe.seed}
        train, held_out = split_rows(recipe.seed, usable.count, recipe.evaluation.fraction)
        return TrainingData(
            train=usable.items(train),
            evaluation=usable.items(held_out),
            max_length=max_length,
            digest=_digest(parts),
            truncated=usable.truncated,
            dropped=usable.dropped,
            dropped_rows=usable.dropped_rows,
            ends=_ends(tokenizer, tokens),
        )
    with dataset_errors_as("evaluation.dataset"):
        evaluated = _tokenise_once(tokenizer, recipe.evaluation.dataset, learned, cache)
    other = _UsableExamples(evaluated, learned, max_length, ("evaluation.dataset", limit))
    return TrainingData(
        train=usable.items(range(usable.count)),
        evaluation=other.items(range(other.count)),
        max_length=max_length,
        digest=_digest(parts | {"evaluation": evaluated.digest}),
        truncated=usable.truncated + other.truncated,
        dropped=usable.dropped + other.dropped,
        dropped_rows=usable.dropped_rows,
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
    """The examples of a file with something to learn within max_length: of two answers, from both."""

    def __init__(self, tokens: Tokens, learned: Learned, max_length: int, names: tuple[str, str]) -> None:
        """Raises InputError if there is none. `names` are the recipe's field of the file, and a description of
        max_length."""
        self._tokens = tokens
        self._learned = learned
        self._max_length = max_length
        self._lengths, self._targets = truncate_documents(tokens, max_length)
        examples = len(tokens.examples) - 1
        self._example = torch.repeat_interleave(torch.arange(examples), tokens.examples.diff())
        has_answer = torch.zeros(examples, dtype=torch.int64).index_add_(0, self._example, (self._targets > 0).long())
        is_usable = has_answer == 2 if learned == "pairs" else has_answer > 0
        if learned == "pairs":
            is_usable[self._alike_once_cut()] = False
        self._usable = is_usable.nonzero().flatten()
        if not len(self._usable):
            raise InputError(FailureCode.DATASET_INVALID, self._explain_none(examples, *names), "batch.max_length")
        self.count = len(self._usable)
        too_long = self._example[tokens.documents.diff() > max_length].unique()
        self.truncated = int(torch.isin(too_long, self._usable).sum())
        self.dropped = examples - self.count
        self.dropped_rows: list[int] = ((~is_usable).nonzero().flatten()[:_SHOWN] + 1).tolist()
        if learned == "ratings" and self.count < 2:
            raise InputError(
                FailureCode.DATASET_INVALID,
                f"{names[0]}: has one usable example, and each rated answer is compared with another one; give more",
                names[0],
            )

    def _alike_once_cut(self) -> list[int]:
        """Pairs whose answers differ behind max_length alone."""
        cut = self._tokens.documents.diff() > self._max_length
        alike = []
        for example in self._example[cut].unique().tolist():
            (one, other) = self._documents(self._tokens.examples[example] + torch.arange(2))
            if one.input_ids == other.input_ids:
                alike.append(example)
        return alike

    def _explain_none(self, examples: int, param: str, limit: str) -> str:
        what = "both answers" if self._learned == "pairs" else "an answer"
        return f"{param}: none of its {examples} examples has {what} in {limit}; raise it or shorten them"

    def items(self, chosen: Sequence[int]) -> Items:
        """Some of these examples, given by their number among them."""
        of_example = self._usable[torch.tensor(chosen, dtype=torch.int64)]
        is_chosen = torch.isin(self._example, of_example)
        rows = (is_chosen & (self._targets > 0)).nonzero().flatten()
        documents = self._documents(rows)
        if self._learned == "ratings" and len(rows) == 1:
            raise InputError(
                FailureCode.DATASET_INVALID,
                "evaluation.fraction: leaves one rated answer to train on or to evaluate, and each is compared with "
                "another one; change the fraction, or give more examples",
                "evaluation.fraction",
            )
        match self._learned:
            case "pairs":
                return TokenPairs(self._documents(rows[::2]), self._documents(rows[1::2]))
            case "ratings":
                return TokenRatings(documents, self._tokens.ratings[self._example[rows]], self._max_length)
        return documents

    def _documents(self, rows: torch.Tensor) -> TokenDocuments:
        return TokenDocuments(self._tokens, rows, self._lengths[rows], self._targets[rows])


def _tokenise_once(tokenizer: FolderTokenizer, dataset: DatasetSource, learned: Learned, cache: Path) -> Tokens:
    """The file's tokens, if the file is unchanged since the job was accepted. The file is hashed each time, which is
    some hundred times as fast as tokenising it."""
    path = Path(dataset.path)
    name = dataset.filename or path.name
    file = DatasetFile(path=path, name=name, format=dataset.format, columns=dataset.columns, learned=learned)
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
            ratings: list[bool] = []
            tokens = flatten(_encode_file(tokenizer, file, sha256, ratings), ratings)
        except InputError:
            # If the file has changed meanwhile, that is the error to report.
            with suppress(OSError):
                _check_unchanged(dataset, file_sha256(path), found)
            raise
        _check_unchanged(dataset, sha256.hexdigest(), found)
        return tokens

    return cached_tokens(cache, _key(tokenizer, dataset, learned, found), tokenise)


def _check_unchanged(dataset: DatasetSource, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            FailureCode.DATASET_CHANGED,
            f"dataset: {Path(dataset.path).name} has changed since the job was accepted; submit it again to train on "
            "the new content",
            "dataset",
        )


def _key(tokenizer: FolderTokenizer, dataset: DatasetSource, learned: Learned, sha256: str) -> str:
    """Name of the tokens in the cache: a digest of everything that determines them. It includes neither max_length nor
    the split, since whole documents are kept and each job cuts them."""
    parts = {
        "dataset": sha256,
        # CSV and plain text are recognised by the name.
        "suffixes": [suffix.lower() for suffix in Path(dataset.filename or dataset.path).suffixes],
        "reading": dataset.model_dump(mode="json", exclude={"path", "filename", "sha256"}),
        "learned": learned,
        "tokenizer": tokenizer.parts,
        "rendering": _RENDERING,
        "versions": {name: importlib.metadata.version(name) for name in ("jinja2", "tokenizers")},
        "today": TODAY.isoformat(),
    }
    return _digest(parts)


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _encode_file(
    tokenizer: FolderTokenizer, file: DatasetFile, sha256: Hash, ratings: list[bool]
) -> Iterator[list[Document]]:
    """The documents of each example of the file, read in batches: text and offsets take many times the memory of
    tokens. Adds the examples' ratings to `ratings`."""
    examples = read_examples(file, sha256=sha256)
    while some := list(itertools.islice(examples, _EXAMPLES_AT_ONCE)):
        ratings += [example.desirable for example in some if isinstance(example, RatedAnswer)]
        yield from encode(tokenizer, some)
