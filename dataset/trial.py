"""Renders and tokenises the first examples of a file. A model that refuses a dataset mostly refuses its first row."""

import itertools
import time
from collections.abc import Iterable

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from dataset.example import Example
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode

_MAX_EXAMPLES = 64
_BATCH = 8
_SECONDS = 2.0  # for long examples


class Trial(BaseModel):
    examples: int
    """Number of examples rendered without a problem."""


def try_examples(
    tokenizer: FolderTokenizer,
    examples: Iterable[Example],
    embeddings: int | None,
) -> Trial:
    """`embeddings` is the number of rows in the model's embedding table, if known. Raises InputError that names a row
    that the template refuses or that has a token without an embedding."""
    tried = itertools.islice(examples, _MAX_EXAMPLES)
    end = time.monotonic() + _SECONDS
    done = 0
    while time.monotonic() < end and (some := list(itertools.islice(tried, _BATCH))):
        for example, documents in zip(some, encode(tokenizer, some), strict=True):
            highest = max((max(document.input_ids, default=0) for document in documents), default=0)
            if embeddings is not None and highest >= embeddings:
                raise missing_embedding(example.where, tokenizer.decode([highest]), highest, embeddings)
        done += len(some)
    return Trial(examples=done)


def missing_embedding(where: str, token: str, number: int, embeddings: int) -> InputError:
    message = (
        f"model: {where} has the token {format_value(token)} with the id {number}, and the model has embeddings for "
        f"ids below {embeddings}; give the tokenizer that belongs to these weights, or resize the embeddings to its "
        "vocabulary"
    )
    return InputError(FailureCode.MODEL_UNSUPPORTED, message, "model")
