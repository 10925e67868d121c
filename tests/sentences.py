"""What a sentence for people looks like."""

import re


def is_sentence(text: str) -> bool:
    """One, with a capital and a full stop."""
    return re.fullmatch(r"[A-Z][^\n]*[^\s.]\.", text) is not None and ". " not in text
