"""Pairs and rated answers out of a tokenised dataset, built on access."""

from collections.abc import Sequence
from typing import overload

import torch

from dataset.document import Document
from trainer.data.items import Pair, Rating
from trainer.data.tokens import TokenDocuments


class TokenPairs(Sequence[Pair]):
    """N pairs. A slice is a TokenPairs too."""

    def __init__(self, chosen: TokenDocuments, rejected: TokenDocuments, reference: torch.Tensor | None = None) -> None:
        """`reference` [N, 2] fp32 are the log probabilities of both answers before training; None is zeros."""
        self._chosen = chosen
        self._rejected = rejected
        self.reference = torch.zeros(len(chosen), 2) if reference is None else reference

    def with_reference(self, reference: torch.Tensor) -> "TokenPairs":
        return TokenPairs(self._chosen, self._rejected, reference)

    @property
    def targets(self) -> int:
        """Number of supervised tokens in all documents."""
        return self._chosen.targets + self._rejected.targets

    def first_beyond(self, limit: int) -> tuple[int, int] | None:
        return self._chosen.first_beyond(limit) or self._rejected.first_beyond(limit)

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "TokenPairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | TokenPairs":
        if isinstance(index, slice):
            return TokenPairs(self._chosen[index], self._rejected[index], self.reference[index])
        chosen, rejected = self.reference[index].tolist()
        return Pair(self._chosen[index], self._rejected[index], (chosen, rejected))


_MOST_ALIKE = 64
"""Rated answers in a row that may have the same prompt."""


class TokenRatings(Sequence[Rating]):
    """N rated answers, at least two. The other answer of each is that of the next one with another prompt, as if they
    were in a ring; it is cut at `max_length` tokens with the prompt before it. A slice is a list."""

    def __init__(
        self,
        answers: TokenDocuments,
        desirable: torch.Tensor,
        max_length: int,
        reference: torch.Tensor | None = None,
    ) -> None:
        """`desirable` [N] bool are the ratings; `reference` [N, 2] fp32 are the log probabilities of the answer and of
        the other one before training; None is zeros."""
        self._answers = answers
        self._desirable = desirable
        self._max_length = max_length
        self.reference = torch.zeros(len(answers), 2) if reference is None else reference

    def with_reference(self, reference: torch.Tensor) -> "TokenRatings":
        return TokenRatings(self._answers, self._desirable, self._max_length, reference)

    @property
    def targets(self) -> int:
        """Number of supervised tokens in all answers."""
        return self._answers.targets

    def first_beyond(self, limit: int) -> tuple[int, int] | None:
        return self._answers.first_beyond(limit)

    def __len__(self) -> int:
        return len(self._answers)

    @overload
    def __getitem__(self, index: int) -> Rating: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rating]: ...
    def __getitem__(self, index: int | slice) -> Rating | list[Rating]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        answer = self._answers[index]
        other = exchange_answer(answer, self._of_another_prompt(index, answer), self._max_length)
        of_answer, of_other = self.reference[index].tolist()
        return Rating(answer, other, bool(self._desirable[index]), (of_answer, of_other))

    def _of_another_prompt(self, index: int, answer: Document) -> Document:
        """The next answer, if so many have the same prompt."""
        following = [(index + distance) % len(self) for distance in range(1, min(len(self), _MOST_ALIKE + 1))]
        others = (self._answers[row] for row in following)
        return next((other for other in others if _prompt(other) != _prompt(answer)), self._answers[following[0]])


def _prompt(document: Document) -> list[int]:
    return document.input_ids[: document.supervised.index(True)]


def exchange_answer(document: Document, other: Document, max_length: int) -> Document:
    """The prompt of `document` with the answer of `other`: everything from its first supervised token on."""
    prompt, answer = document.supervised.index(True), other.supervised.index(True)
    input_ids = document.input_ids[:prompt] + other.input_ids[answer:]
    supervised = document.supervised[:prompt] + other.supervised[answer:]
    return Document(input_ids[:max_length], supervised[:max_length])
