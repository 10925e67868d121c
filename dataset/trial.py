"""Has a model's tokenizer and chat template write the first examples of a file: what a model refuses, it mostly refuses
on the first row."""

import itertools
import time
from collections.abc import Iterable

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.quote import quote
from dataset.example import Example
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode

_MOST_EXAMPLES = 64
_AT_ONCE = 8
_SECONDS = 2.0  # for long examples


class Trial(BaseModel):
    examples: int
    """Written without a problem."""


def try_examples(
    tokenizer: FolderTokenizer,
    examples: Iterable[Example],
    embeddings: int | None,
) -> Trial:
    """`embeddings` are the rows of the model's table of them, where they are known. Raises InputError that names the
    row: the template refuses it, or it has a token without an embedding."""
    tried = itertools.islice(examples, _MOST_EXAMPLES)
    end = time.monotonic() + _SECONDS
    done = 0
    while time.monotonic() < end and (some := list(itertools.islice(tried, _AT_ONCE))):
        for example, documents in zip(some, encode(tokenizer, some), strict=True):
            highest = max((max(document.input_ids, default=0) for document in documents), default=0)
            if embeddings is not None and highest >= embeddings:
                raise without_embedding(example.where, tokenizer.decode([highest]), highest, embeddings)
        done += len(some)
    return Trial(examples=done)


def without_embedding(where: str, token: str, number: int, embeddings: int) -> InputError:
    message = (
        f"model: {where} has the token {quote(token)} with the id {number}, and the model has embeddings for ids below "
        f"{embeddings}; give the tokenizer that belongs to these weights, or resize the embeddings to its vocabulary"
    )
    return InputError(FailureCode.MODEL_UNSUPPORTED, message, "model")
