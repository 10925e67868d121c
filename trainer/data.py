"""From a file of examples to token ids, with the assistant's tokens marked as the ones to learn."""

import hashlib
import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.failure import FailureReason, InputError
from contract.recipe import Dataset, Recipe
from dataset.example import Example
from dataset.read import digest, read_examples
from trainer.order import split
from trainer.packing import Document
from trainer.render import Span, render
from trainer.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Data:
    train: list[Document]
    evaluation: list[Document]
    truncated: int
    """Examples cut at max_length that are still of use."""
    dropped: int
    """Examples without a supervised token, left out."""


def load_data(recipe: Recipe) -> Data:
    """Reads, renders, tokenises, cuts and splits. Raises InputError for everything that is wrong with the dataset, or
    with the model's tokenizer."""
    tokenizer = load_tokenizer(recipe)
    usable: list[list[Document]] = []
    truncated = dropped = 0
    for example in _encode_file(tokenizer, recipe.dataset):
        documents = [_truncate(document, recipe.batch.max_length) for document in example]
        documents = [document for document in documents if document.targets]
        if documents:
            usable.append(documents)
            truncated += any(len(document.input_ids) > recipe.batch.max_length for document in example)
        else:
            dropped += 1
    if not usable:
        raise InputError(
            FailureReason.DATASET_INVALID,
            f"dataset: none of its {dropped} examples has an answer in batch.max_length = {recipe.batch.max_length} "
            "tokens; raise it or shorten them",
            "batch.max_length",
        )
    train, held_out = split(recipe.seed, len(usable), recipe.evaluation.share)
    return Data(
        train=[document for index in train for document in usable[index]],
        evaluation=[document for index in held_out for document in usable[index]],
        truncated=truncated,
        dropped=dropped,
    )


def _encode_file(tokenizer: Any, dataset: Dataset) -> list[list[Document]]:
    """The documents of each example of the file, if it is the one that the job was taken with."""
    path = Path(dataset.path)
    sha256 = hashlib.sha256()
    try:
        encoded = encode(tokenizer, read_examples(path, dataset.format, dataset.columns, sha256=sha256))
    except InputError:
        # The service has read it without a fault: it may well have changed, and that is then what to tell.
        with suppress(OSError):
            _check_unchanged(dataset, digest(path))
        raise
    _check_unchanged(dataset, sha256.hexdigest())
    return encoded


def _check_unchanged(dataset: Dataset, sha256: str) -> None:
    if dataset.sha256 not in (None, sha256):
        raise InputError(
            FailureReason.DATASET_CHANGED,
            f"dataset: {Path(dataset.path).name} has changed since the job was taken; submit it again to train on the "
            "new content",
            "dataset",
        )


def encode(tokenizer: Any, examples: Iterable[Example]) -> list[list[Document]]:
    """The documents of each example, uncut; see render for their number. Raises InputError that names the row."""
    rendered = [render(tokenizer, example) for example in examples]
    texts = list(itertools.chain.from_iterable(rendered))
    encoded = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    special = frozenset(tokenizer.all_special_ids)
    documents = (
        Document(ids, _supervised(ids, offsets, text, spans, special))
        for ids, offsets, (text, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], texts, strict=True)
    )
    return [list(itertools.islice(documents, len(parts))) for parts in rendered]


def _supervised(
    ids: list[int], offsets: list[Span], text: str, spans: list[Span], special: frozenset[int]
) -> list[bool]:
    """Marks the tokens that begin and end inside one of the spans. A token that begins before an answer is not marked:
    at generation the prompt ends there. White space after the end-of-turn token is not marked either: generation
    ends there."""
    flags = [False] * len(ids)
    for begin, end in spans:
        inside = [i for i, (first, last) in enumerate(offsets) if first >= begin and begin < last <= end]
        last_special = next((i for i in reversed(inside) if ids[i] in special), None)
        if last_special is not None and not text[offsets[last_special][1] : end].strip():
            inside = [i for i in inside if i <= last_special]
        for i in inside:
            flags[i] = True
    if flags:
        flags[0] = False
    return flags


def _truncate(document: Document, max_length: int) -> Document:
    """Cut at its end to max_length tokens, and after the last supervised one: nothing there can reach the loss."""
    supervised = document.supervised[:max_length]
    length = max((index + 1 for index, learned in enumerate(supervised) if learned), default=0)
    return Document(document.input_ids[:length], supervised[:length])
