"""An example as tokens, and what is left of it at a length."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One example as tokens, or the part of one up to an answer."""

    input_ids: list[int]
    supervised: list[bool]
    """Which tokens are learned, one flag per token. The first never is: nothing comes before it to tell it from."""

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return sum(self.supervised)

    @property
    def length(self) -> int:
        """Tokens that the model reads: the last one has nothing left to predict."""
        return len(self.input_ids) - 1


def cut(document: Document, max_length: int) -> Document:
    """Its first max_length tokens, and of these no more than up to the last supervised one: nothing after it can reach
    the loss. Empty where none of them is supervised. trainer/data/tokens.py does this to a whole dataset at once."""
    flags = document.supervised[:max_length]
    end = next((index + 1 for index in reversed(range(len(flags))) if flags[index]), 0)
    return Document(document.input_ids[:end], flags[:end])


@dataclass(frozen=True)
class Fit:
    """Of an example, at a length."""

    truncated: bool
    """It is cut, and still of use."""
    dropped: bool
    """It has no supervised token left, and is left out."""


def fit(documents: Sequence[Document], max_length: int) -> Fit:
    """`documents` are all of one example."""
    dropped = not any(any(document.supervised[:max_length]) for document in documents)
    return Fit(not dropped and any(len(document.input_ids) > max_length for document in documents), dropped)
