"""Compares a dataset's tokens with the model's embeddings: on a GPU an id beyond them kills a run without a message."""

from typing import Any

from contract.recipe import Recipe
from dataset.trial import missing_embedding
from trainer.data.examples import TrainingData
from trainer.data.tokenizer import load_tokenizer


def check_vocabulary(recipe: Recipe, base: Any, data: TrainingData) -> None:
    """Raises InputError that names the first example with a token that has no embedding."""
    # The module's own number, since DeepSpeed may have sharded the weights.
    embeddings = getattr(base.get_input_embeddings(), "num_embeddings", None)
    if embeddings is None:
        return
    for documents, param in ((data.train, "dataset"), (data.evaluation, "the evaluation's dataset")):
        found = documents.first_beyond(embeddings)
        if found is not None:
            example, number = found
            token = load_tokenizer(recipe).decode([number])
            raise missing_embedding(f"example {example} of {param}", token, number, embeddings)
