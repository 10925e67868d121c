"""The model's tokenizer, with the chat template that the conversations are written by."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from trainer.chat_templates import CHAT_TEMPLATES, END_OF_TURN
from trainer.model import cannot_load


def load_tokenizer(recipe: Recipe) -> Any:
    """Raises InputError for a tokenizer that gives no offsets, or cannot write the named chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise cannot_load(recipe.model, error) from error
    if not tokenizer.is_fast:
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            "model: its tokenizer has no tokenizer.json; one is needed to find the answers' tokens",
            "model",
        )
    if recipe.dataset.chat_template is not None:
        _set_chat_template(tokenizer, recipe.dataset.chat_template)
    return tokenizer


def save_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Puts the tokenizer beside an adapter that was trained through a named chat template: there
    AutoTokenizer.from_pretrained writes conversations as training did, which the model's own does not.

    Its end-of-text token is what ended an answer in training, as that is where generation stops by it.
    """
    tokenizer = load_tokenizer(recipe)
    name = recipe.dataset.chat_template
    if name in END_OF_TURN:
        tokenizer.eos_token = END_OF_TURN[name]
    tokenizer.save_pretrained(folder)


def begin_of_text(tokenizer: Any) -> str:
    """What the tokenizer writes before every text by itself: BOS for some, nothing for most."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer.bos_token if begins else ""


def end_of_text(tokenizer: Any, what: str) -> str:
    """Raises InputError when the tokenizer has no such token."""
    if tokenizer.eos_token is None:
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            f"model: its tokenizer has no end-of-text token, with which {what} ends; add one to its eos_token",
            "model",
        )
    return tokenizer.eos_token


def _set_chat_template(tokenizer: Any, name: str) -> None:
    end = END_OF_TURN.get(name) or end_of_text(tokenizer, "each answer")
    if end not in tokenizer.get_vocab():
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            f"dataset.chat_template: {name} ends a turn with {end}, and the model's tokenizer has no such token; use "
            "another template, whose answers end with the end of text",
            "dataset.chat_template",
        )
    begin = begin_of_text(tokenizer)
    tokenizer.chat_template = f"{{%- set bos = {'bos_token' if begin else repr('')} %}}{CHAT_TEMPLATES[name]}"
