"""Conversations to text and tokens, by a model's template and tokenizer."""
