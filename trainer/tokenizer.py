"""The model's tokenizer, with the chat template that the conversations are written by."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from dataset.chat_templates import END_OF_TURN
from dataset.tokenizer import set_chat_template
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
        set_chat_template(tokenizer, recipe.dataset.chat_template)
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
