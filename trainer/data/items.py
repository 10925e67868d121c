"""What a run trains on, one at a time: a document to learn, a pair to compare, or a rated answer."""

from dataclasses import dataclass

from dataset.document import Document


@dataclass(frozen=True)
class Pair:
    """Two answers to the same prompt, each with that prompt before it."""

    chosen: Document
    rejected: Document
    reference: tuple[float, float] = (0.0, 0.0)
    """Log probabilities of the two answers before training, in nats."""

    @property
    def documents(self) -> list[Document]:
        return [self.chosen, self.rejected]

    @property
    def targets(self) -> int:
        return self.chosen.targets + self.rejected.targets

    @property
    def length(self) -> int:
        """Tokens that the model reads without sharing the prompt."""
        return self.chosen.length + self.rejected.length


@dataclass(frozen=True)
class Rating:
    """An answer that people call good or bad."""

    answer: Document
    other: Document
    """The same prompt with the answer of another example, from which the run estimates how far it has moved."""
    desirable: bool
    reference: tuple[float, float] = (0.0, 0.0)
    """Log probabilities of `answer` and of `other`'s answer before training, in nats."""

    @property
    def documents(self) -> list[Document]:
        return [self.answer]

    @property
    def of_other(self) -> "Rating":
        """The same with the other example's answer in the place of its own."""
        return Rating(self.other, self.answer, self.desirable, self.reference[::-1])

    @property
    def targets(self) -> int:
        return self.answer.targets

    @property
    def length(self) -> int:
        return self.answer.length


Item = Document | Pair | Rating
