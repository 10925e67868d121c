"""From a file of examples to token ids, with the assistant's tokens marked as the ones to learn."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from contract.examples import Conversation, digest, read_examples
from contract.failure import FailureReason, InputError
from contract.recipe import Dataset, Recipe
from trainer.model import cannot_load
from trainer.order import split
from trainer.packing import Document

Span = tuple[int, int]
"""Begin and end of a piece of text, in characters."""


@dataclass(frozen=True)
class Data:
    train: list[Document]
    evaluation: list[Document]
    truncated: int
    """Rows of the file cut at max_length that are still of use."""
    dropped: int
    """Rows of the file without a supervised token, left out."""


def load_data(recipe: Recipe) -> Data:
    """Reads, renders, tokenises, cuts and splits. Raises InputError for everything that is wrong with the dataset, or
    with the model's tokenizer."""
    path = Path(recipe.dataset.path)
    _check_unchanged(recipe.dataset, path)
    tokenizer = load_tokenizer(recipe.model)
    usable: list[list[Document]] = []
    truncated = dropped = 0
    for row in encode(tokenizer, read_examples(path, recipe.dataset.format)):
        documents = [_truncate(document, recipe.batch.max_length) for document in row]
        documents = [document for document in documents if document.targets]
        if documents:
            usable.append(documents)
            truncated += any(len(document.input_ids) > recipe.batch.max_length for document in row)
        else:
            dropped += 1
    if not usable:
        raise InputError(
            FailureReason.DATASET_INVALID,
            f"dataset: none of its {dropped} rows has an answer within batch.max_length = {recipe.batch.max_length} "
            "tokens; raise it or shorten the rows",
            "batch.max_length",
        )
    train, held_out = split(recipe.seed, len(usable), recipe.evaluation.share)
    return Data(
        train=[document for row in train for document in usable[row]],
        evaluation=[document for row in held_out for document in usable[row]],
        truncated=truncated,
        dropped=dropped,
    )


def _check_unchanged(dataset: Dataset, path: Path) -> None:
    if dataset.sha256 is not None and digest(path) != dataset.sha256:
        raise InputError(
            FailureReason.DATASET_CHANGED,
            f"dataset: {path.name} has changed since the job was taken; submit it again to train on the new content",
            "dataset",
        )


def load_tokenizer(model: str) -> Any:
    """Raises InputError for a model without a chat template, or with a tokenizer that gives no offsets."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise cannot_load(model, error) from error
    if not tokenizer.is_fast:
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            "model: its tokenizer has no tokenizer.json; one is needed to find the answers' tokens",
            "model",
        )
    if tokenizer.chat_template is None:
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            "model: its tokenizer has no chat template, so conversations cannot be rendered; use the instruct or chat "
            "version of the model, or add a chat_template.jinja",
            "model",
        )
    return tokenizer


def encode(tokenizer: Any, conversations: Iterable[Conversation]) -> list[list[Document]]:
    """The documents of each conversation, uncut; see _render for their number. Raises InputError that names the row."""
    rendered = [_render(tokenizer, row, messages) for row, messages in enumerate(conversations, start=1)]
    texts = list(itertools.chain.from_iterable(rendered))
    encoded = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    special = frozenset(tokenizer.all_special_ids)
    documents = (
        Document(ids, _supervised(ids, offsets, text, spans, special))
        for ids, offsets, (text, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], texts, strict=True)
    )
    return [list(itertools.islice(documents, len(parts))) for parts in rendered]


def _render(tokenizer: Any, row: int, messages: Conversation) -> list[tuple[str, list[Span]]]:
    """The conversation as the model's chat template writes it, and where the assistant's answers are in it.

    That is one text, unless the template writes a turn in another way once others follow: many leave out what the
    assistant thought in earlier turns. Then it is a text for each answer, up to that answer, as the model sees it when
    it gives it.
    """
    whole = _apply_template(tokenizer, row, messages, answer_next=False)
    answers = [
        _until_answer(tokenizer, row, messages, index)
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message["content"].strip()
    ]
    if all(whole.startswith(text) for text, _ in answers):
        return [(whole, [span for _, span in answers])]
    return [(text, [span]) for text, span in answers]


def _until_answer(tokenizer: Any, row: int, messages: Conversation, index: int) -> tuple[str, Span]:
    """The conversation up to the answer messages[index], and where in it the answer is.

    Few templates mark the answers, so it is found by rendering the messages before it as well.
    """
    before = _apply_template(tokenizer, row, messages[:index], answer_next=True)
    text = _apply_template(tokenizer, row, messages[: index + 1], answer_next=False)
    if not text.startswith(before):
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            f"row {row}: the model's chat template writes the conversation before messages[{index}] in another way "
            "once the answer is there, so the answer's tokens cannot be told apart; use another model",
            "dataset",
        )
    return text, (len(before), len(text))


def _apply_template(tokenizer: Any, row: int, messages: Conversation, *, answer_next: bool) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    except TemplateError as error:
        raise InputError(
            FailureReason.DATASET_INVALID, f"row {row}: the model's chat template refuses it: {error}", "dataset"
        ) from error


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
