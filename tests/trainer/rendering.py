"""Tokenizers with another chat template, and what is learned of a document."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from dataset.document import Document
from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from dataset.rendering.tokenizer import TODAY

_DATE_CODES = ("-d", "-m", *"aAbBcdDeFHIjmMpSTuUVwWxXyY")
"""Of strftime."""


def as_read(tokenizer: PreTrainedTokenizerFast, folder: Path) -> FolderTokenizer:
    """As previews and training read it from its folder."""
    tokenizer.save_pretrained(folder)
    return read_tokenizer(folder)


def with_fixed_date(template: Any) -> Any:
    """A chat template that writes dataset.rendering.tokenizer.TODAY: transformers gives it the clock."""
    if not isinstance(template, str) or "strftime_now" not in template:
        return template
    written = "".join(f" | replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in _DATE_CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{written} }}}}{{% endmacro +%}}{template}"


def learned(tokenizer: Any, document: Document) -> str:
    return tokenizer.decode([t for t, flag in zip(document.input_ids, document.supervised, strict=True) if flag])


def copy_with_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token, chat_template=template
    )
