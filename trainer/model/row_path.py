"""How rows of documents go through a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RowPath:
    packed: bool
    """Whether all documents of a row go through the model at once. Otherwise each goes alone."""
    plain_head: bool = False
    """Whether the logits are the output matrix times the last hidden states, and nothing else."""
    separated: tuple[str, ...] = ()
    """Classes of a layer's parts that take each document of a packed row alone."""
    shares_prompts: bool = False
    """Whether documents may share what they begin with."""
    because: str = ""
    """Why, for people."""
