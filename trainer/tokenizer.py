"""The model's tokenizer, with the chat template that the conversations are written by."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from dataset.chat_templates import END_OF_TURN
from dataset.tokenizer import TODAY, set_chat_template
from trainer.model import loading_errors

_DATE_CODES = ("-d", "-m", *"aAbBcdDeFHIjmMpSTuUVwWxXyY")
"""Of strftime."""


def load_tokenizer(recipe: Recipe) -> Any:
    """Raises InputError for a tokenizer that gives no offsets, or cannot write the named chat template."""
    with loading_errors(recipe.model):
        tokenizer = AutoTokenizer.from_pretrained(recipe.model, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(
            FailureReason.MODEL_UNSUPPORTED,
            "model: its tokenizer has no tokenizer.json; one is needed to find the answers' tokens",
            "model",
        )
    if recipe.dataset.chat_template is not None:
        set_chat_template(tokenizer, recipe.dataset.chat_template)
    fix_date(tokenizer)
    return tokenizer


def fix_date(tokenizer: Any) -> None:
    """Has its chat templates write dataset.tokenizer.TODAY. transformers hands them the clock and takes no other
    function, so they get one of their own."""
    given = tokenizer.chat_template
    if isinstance(given, str):
        tokenizer.chat_template = _with_fixed_date(given)
    elif given:
        tokenizer.chat_template = {name: _with_fixed_date(template) for name, template in given.items()}


def _with_fixed_date(template: str) -> str:
    if "strftime_now" not in template:
        return template
    written = "".join(f" | replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in _DATE_CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{written} }}}}{{% endmacro +%}}{template}"


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
