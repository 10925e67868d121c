"""Examples as a model sees them: the text that its chat template writes, and the learned part of it."""

import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import DatasetReader, ReadRow
from dataset.document import Document, truncation
from dataset.example import Example, Preference, rating_of
from dataset.refusal import BadFile, BadRow
from dataset.rendering.render import render
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import Tokenizer

Answer = Literal["chosen", "rejected"]
MAX_TOKENS = 8192
"""Maximum number of tokens shown of one text."""


class Token(BaseModel):
    id: int
    text: str
    """Text of the token. All of them joined are the text; a token that ends within a character is empty, except the
    first of them."""
    supervised: bool
    """True if the token is learned."""


class RenderedText(BaseModel):
    answer: Answer | None
    """Which answer of a pair it has; null for an example that is no pair."""
    text: str
    """The text as the chat template writes it, up to the last token shown."""
    length: int
    """Number of tokens in all."""
    supervised: int
    """Number of learned tokens, before any cut."""
    kept: int
    """Number of tokens within max_length."""
    tokens: list[Token]
    """The first 8192 tokens."""


class PreviewExample(BaseModel):
    row: int
    texts: list[RenderedText]
    """One text, or one per answer if the template writes earlier turns differently; two of a pair, chosen first."""
    desirable: bool | None
    """Whether the answer is rated as good; null if it has no rating."""
    truncated: bool
    """True if the example is cut at max_length and still learned."""
    dropped: bool
    """True if training leaves the example out, because no answer begins within max_length, or one of a pair does
    not."""
    problem: str | None
    """Why the example cannot be learned."""


class Preview(BaseModel):
    data: list[PreviewExample]
    has_more: bool


def preview(tokenizer: Tokenizer, file: DatasetFile, max_length: int, offset: int, limit: int) -> Preview:
    """Examples of the rows after the first `offset`. Raises InputError for a file that cannot be read."""
    shown: list[PreviewExample] = []
    try:
        rows = DatasetReader(file, None).rows()
        for row in itertools.islice(rows, offset, offset + limit):
            shown += _row(tokenizer, row, max_length)
        return Preview(data=shown, has_more=next(rows, None) is not None)
    except BadFile as error:
        if not shown:
            raise InputError(FailureCode.DATASET_INVALID, f"the file {error}", error.param) from error
        return Preview(data=shown, has_more=False)


def _row(tokenizer: Tokenizer, row: ReadRow, max_length: int) -> list[PreviewExample]:
    if isinstance(row.read, BadRow):
        return [_refused(row.number, str(row.read))]
    return [_example(tokenizer, row.number, example, max_length) for example in row.read]


def _refused(row: int, problem: str) -> PreviewExample:
    problem = truncate(problem, 500)
    return PreviewExample(row=row, texts=[], desirable=None, truncated=False, dropped=False, problem=problem)


def _example(tokenizer: Tokenizer, row: int, example: Example, max_length: int) -> PreviewExample:
    try:
        texts = [text for text, _ in render(tokenizer, example)]
        (documents,) = encode(tokenizer, [example])
    except InputError as error:
        return _refused(row, error.failure.message)
    is_pair = isinstance(example, Preference)
    found = truncation(documents, max_length, is_pair)
    names: Sequence[Answer | None] = ("chosen", "rejected") if is_pair else (None,) * len(texts)
    return PreviewExample(
        row=row,
        texts=[
            _text(tokenizer, text, document, max_length).model_copy(update={"answer": name})
            for text, document, name in zip(texts, documents, names, strict=True)
        ],
        desirable=rating_of(example),
        truncated=found.truncated,
        dropped=found.dropped,
        problem=None,
    )


def _text(tokenizer: Tokenizer, text: str, document: Document, max_length: int) -> RenderedText:
    (offsets,) = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    tokens, begin = [], 0
    for index, (token, supervised) in enumerate(
        itertools.islice(zip(document.input_ids, document.supervised, strict=True), MAX_TOKENS)
    ):
        end = len(text) if index == len(offsets) - 1 else max(begin, offsets[index][1])
        tokens.append(Token(id=token, text=text[begin:end], supervised=supervised))
        begin = end
    return RenderedText(
        answer=None,
        text=text[:begin],
        length=len(document.input_ids),
        supervised=document.targets,
        kept=min(max_length, len(document.input_ids)),
        tokens=tokens,
    )
