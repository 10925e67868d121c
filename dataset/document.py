"""An example as tokens, and what remains of it at a maximum length."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One example as tokens, or the part of one up to an answer."""

    input_ids: list[int]
    supervised: list[bool]
    """One flag per token: whether it is learned. The first never is, since nothing before it predicts it."""

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return sum(self.supervised)

    @property
    def length(self) -> int:
        """Tokens that the model reads; the last one has nothing left to predict."""
        return len(self.input_ids) - 1

    @property
    def documents(self) -> list["Document"]:
        """Itself: what the examples of every method have, however many documents they compare."""
        return [self]


def truncate_document(document: Document, max_length: int) -> Document:
    """The first max_length tokens, without those after the last supervised one, which cannot affect the loss. Empty if
    none of them is supervised. trainer/data/tokens.py does the same to a whole dataset at once."""
    flags = document.supervised[:max_length]
    end = next((index + 1 for index in reversed(range(len(flags))) if flags[index]), 0)
    return Document(document.input_ids[:end], flags[:end])


@dataclass(frozen=True)
class Truncation:
    """The effect of a maximum length on an example."""

    truncated: bool
    """True if the example is cut and something to learn remains."""
    dropped: bool
    """True if no supervised token remains, so the example is left out."""


def truncation(documents: Sequence[Document], max_length: int, is_pair: bool = False) -> Truncation:
    """`documents` are all of one example. A pair is dropped if either answer has no token left."""
    remains = [any(document.supervised[:max_length]) for document in documents]
    dropped = not (all(remains) if is_pair else any(remains))
    return Truncation(not dropped and any(len(document.input_ids) > max_length for document in documents), dropped)
