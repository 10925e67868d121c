"""Compares a dataset's tokens with the model's embeddings: on a GPU an id beyond them ends a run without a word."""

from typing import Any

from contract.recipe import Recipe
from dataset.trial import without_embedding
from trainer.data.examples import Data
from trainer.data.tokenizer import load_tokenizer


def check_vocabulary(recipe: Recipe, base: Any, data: Data) -> None:
    """Raises InputError that names the first example with a token that has no embedding."""
    # The module's own number: DeepSpeed may have divided the weights.
    embeddings = getattr(base.get_input_embeddings(), "num_embeddings", None)
    if embeddings is None:
        return
    for documents, param in ((data.train, "dataset"), (data.evaluation, "the evaluation's dataset")):
        found = documents.first_beyond(embeddings)
        if found is not None:
            example, number = found
            token = load_tokenizer(recipe).decode([number])
            raise without_embedding(f"example {example} of {param}", token, number, embeddings)
