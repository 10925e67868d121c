"""Examples of a file as a model sees them: the text that its chat template writes, and what of it is learned."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.quote import cut
from contract.recipe import DatasetField, DatasetFormat
from dataset.document import Document, fit
from dataset.example import Example
from dataset.read import Reading, ReadRow
from dataset.refusal import BadFile, BadRow
from dataset.rendering.render import render
from dataset.rendering.tokenise import encode
from dataset.rendering.tokenizer import Tokenizer

MOST_TOKENS = 8192
"""Of one text that are shown."""


class Token(BaseModel):
    id: int
    text: str
    """One after another these are the text. What ends within a character is empty, but for the first."""
    supervised: bool
    """It is learned."""


class RenderedText(BaseModel):
    text: str
    """As the chat template writes it; to the last token that is shown."""
    length: int
    """Tokens in all."""
    supervised: int
    """Of these, the ones that are learned, uncut."""
    kept: int
    """Tokens within max_length."""
    tokens: list[Token]
    """The first 8192."""


class PreviewExample(BaseModel):
    row: int
    texts: list[RenderedText]
    """One, or one for each answer where the template writes earlier turns in another way."""
    truncated: bool
    """It is cut at max_length, and still of use."""
    dropped: bool
    """No answer begins within max_length: training leaves it out."""
    problem: str | None
    """Why it cannot be learned."""


class Preview(BaseModel):
    data: list[PreviewExample]
    has_more: bool


def preview(
    tokenizer: Tokenizer,
    path: Path,
    name: str,
    format: DatasetFormat | Literal["auto"],
    columns: Mapping[DatasetField, str] | None,
    max_length: int,
    offset: int,
    limit: int,
) -> Preview:
    """The rows after the first `offset`. Raises InputError for a file that cannot be read."""
    shown: list[PreviewExample] = []
    try:
        rows = Reading(path, name, format, columns or {}, None).rows()
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
    return PreviewExample(row=row, texts=[], truncated=False, dropped=False, problem=cut(problem, 500))


def _example(tokenizer: Tokenizer, row: int, example: Example, max_length: int) -> PreviewExample:
    try:
        texts = [text for text, _ in render(tokenizer, example)]
        (documents,) = encode(tokenizer, [example])
    except InputError as error:
        return _refused(row, error.failure.message)
    found = fit(documents, max_length)
    return PreviewExample(
        row=row,
        texts=[_text(tokenizer, *each, max_length) for each in zip(texts, documents, strict=True)],
        truncated=found.truncated,
        dropped=found.dropped,
        problem=None,
    )


def _text(tokenizer: Tokenizer, text: str, document: Document, max_length: int) -> RenderedText:
    (offsets,) = tokenizer([text], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    tokens, told = [], 0
    for index, (token, supervised) in enumerate(
        itertools.islice(zip(document.input_ids, document.supervised, strict=True), MOST_TOKENS)
    ):
        end = len(text) if index == len(offsets) - 1 else max(told, offsets[index][1])
        tokens.append(Token(id=token, text=text[told:end], supervised=supervised))
        told = end
    return RenderedText(
        text=text[:told],
        length=len(document.input_ids),
        supervised=document.targets,
        kept=min(max_length, len(document.input_ids)),
        tokens=tokens,
    )
