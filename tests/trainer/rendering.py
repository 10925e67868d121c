"""Tokenizers with another chat template, and what is learned of a document."""

from transformers import PreTrainedTokenizerFast

from dataset.document import Document


def learned(tokenizer: PreTrainedTokenizerFast, document: Document) -> str:
    return tokenizer.decode([t for t, flag in zip(document.input_ids, document.supervised, strict=True) if flag])


def copy_with_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token, chat_template=template
    )
