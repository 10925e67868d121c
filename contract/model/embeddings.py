"""The modules of a loaded model that hold the embeddings of its tokens."""

from contract.model.loaded_names import Shapes

_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")


def is_embedding(module: str) -> bool:
    return module.rsplit(".", 1)[-1] in _EMBEDDINGS


def embedding_rows(shapes: Shapes) -> int | None:
    """Number of token ids with an embedding; None if the table has an unknown name."""
    found = (shape[0] for name, shape in shapes.items() if is_embedding(name.removesuffix(".weight")) and shape)
    return max(found, default=None)
