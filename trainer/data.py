"""From a file of examples to token ids, with the assistant's tokens marked as the ones to learn."""

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
    """Examples cut at max_length that are still of use."""
    dropped: int
    """Examples without a supervised token, left out."""


def load_data(recipe: Recipe) -> Data:
    """Reads, renders, tokenises, cuts and splits. Raises InputError for everything that is wrong with the dataset, or
    with the model's tokenizer."""
    path = Path(recipe.dataset.path)
    _check_unchanged(recipe.dataset, path)
    tokenizer = load_tokenizer(recipe.model)
    whole = encode(tokenizer, read_examples(path, recipe.dataset.format))
    cut = [_truncate(document, recipe.batch.max_length) for document in whole]
    usable = [document for document in cut if document.targets]
    if not usable:
        raise InputError(
            FailureReason.DATASET_INVALID,
            f"dataset: none of its {len(cut)} rows has an answer within batch.max_length = {recipe.batch.max_length} "
            "tokens; raise it or shorten the rows",
            "batch.max_length",
        )
    train, held_out = split(recipe.seed, len(usable), recipe.evaluation.share)
    return Data(
        train=[usable[row] for row in train],
        evaluation=[usable[row] for row in held_out],
        truncated=sum(
            len(document.input_ids) > recipe.batch.max_length and c.targets > 0
            for document, c in zip(whole, cut, strict=True)
        ),
        dropped=len(cut) - len(usable),
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


def encode(tokenizer: Any, conversations: Iterable[Conversation]) -> list[Document]:
    """One document per conversation, uncut. Raises InputError that names the row."""
    rendered = [_render(tokenizer, row, messages) for row, messages in enumerate(conversations, start=1)]
    encoded = tokenizer([text for text, _ in rendered], add_special_tokens=False, return_offsets_mapping=True)
    special = frozenset(tokenizer.all_special_ids)
    return [
        Document(ids, _supervised(ids, offsets, text, spans, special))
        for ids, offsets, (text, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], rendered, strict=True)
    ]


def _render(tokenizer: Any, row: int, messages: Conversation) -> tuple[str, list[Span]]:
    """The conversation as the model's chat template writes it, and where the assistant's answers are in it.

    Few templates mark the answers, so they are found by rendering the messages before each, and up to each.
    """
    text = _apply_template(tokenizer, row, messages, answer_next=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        before = _apply_template(tokenizer, row, messages[:index], answer_next=True)
        until = _apply_template(tokenizer, row, messages[: index + 1], answer_next=False)
        if not (until.startswith(before) and text.startswith(until)):
            raise InputError(
                FailureReason.MODEL_UNSUPPORTED,
                f"row {row}: the model's chat template writes the conversation before messages[{index}] in another way "
                "once the answer is there, so the answer's tokens cannot be told apart; split the conversation at its "
                "answers, or use another model",
                "dataset",
            )
        spans.append((len(before), len(until)))
    return text, spans


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
