"""The interface of a tokenizer with a chat template, and what it writes at the ends of texts."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Protocol

from contract.failure import FailureCode, InputError
from dataset.rendering.chat_templates import CHAT_TEMPLATES, END_OF_TURN

TODAY = date(2024, 7, 26)
"""The date for templates that write one: Llama's own default. With the real date, a run that is resumed the next day,
or reads its tokens from the cache, would train on different tokens."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""Files that belong to the tokenizer."""
MODEL_FILES = ("config.json", "generation_config.json")
"""Other files that a tokenizer is read from: they have the ids of the tokens that begin and end texts."""


class Tokenizer(Protocol):
    """What rendering needs from a FolderTokenizer (folder_tokenizer.py), with which previews, plans and training all
    make their tokens. transformers.PreTrainedTokenizerFast has it too."""

    chat_template: Any
    """The template's text, or several by name; None if there is none."""

    @property
    def bos_token(self) -> str | None: ...
    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token(self) -> str | None: ...
    @property
    def all_special_ids(self) -> list[int]: ...
    def get_vocab(self) -> dict[str, int]: ...

    def __call__(self, text: Any, **options: Any) -> Any: ...

    def apply_chat_template(
        self, conversation: Sequence[Any], *, tools: Any, tokenize: bool, add_generation_prompt: bool, **arguments: Any
    ) -> Any: ...


def begin_of_text(tokenizer: Tokenizer) -> str:
    """What the tokenizer itself writes before every text: BOS for some, nothing for most."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return (tokenizer.bos_token or "") if begins else ""


def end_of_text(tokenizer: Tokenizer, what: str) -> str:
    """Raises InputError if the tokenizer has no such token."""
    if tokenizer.eos_token is None:
        raise InputError(
            FailureCode.MODEL_UNSUPPORTED,
            f"model: its tokenizer has no end-of-text token, with which {what} ends; add one to its eos_token",
            "model",
        )
    return tokenizer.eos_token


def end_of_answer(tokenizer: Tokenizer, name: str) -> str:
    """The token with which one of CHAT_TEMPLATES ends an answer. Raises InputError if the tokenizer does not have
    it."""
    return END_OF_TURN.get(name) or end_of_text(tokenizer, "each answer")


def set_chat_template(tokenizer: Tokenizer, name: str) -> None:
    """Replaces the model's own template with one of CHAT_TEMPLATES. Raises InputError if the tokenizer cannot write
    it."""
    end = end_of_answer(tokenizer, name)
    if end not in tokenizer.get_vocab():
        raise InputError(
            FailureCode.MODEL_UNSUPPORTED,
            f"dataset.chat_template: {name} ends a turn with {end}, and the model's tokenizer has no such token; use "
            "another template, whose answers end with the end of text",
            "dataset.chat_template",
        )
    begin = begin_of_text(tokenizer)
    tokenizer.chat_template = f"{{%- set bos = {'bos_token' if begin else repr('')} %}}{CHAT_TEMPLATES[name]}"
