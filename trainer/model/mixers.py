"""Parts of a layer that mix tokens along the row without our attention: a state, a convolution, an attention of the
model's own. Each document passes through them alone, while everything else takes the whole row."""

import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from trainer.model.attention import DocumentBounds


class Row:
    """The documents of the row that passes through the model."""

    lengths: list[int] | None = None
    """None without a row of documents, such as when the model writes an answer."""


def layer_parts(backbone: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The direct parts of each layer: attention, MLP, norms ..."""
    for layers in backbone.modules():
        if isinstance(layers, torch.nn.ModuleList):
            for layer in layers:
                yield from layer.children()


def separate_documents(backbone: torch.nn.Module, classes: Collection[str], row: Row) -> None:
    """From now on the layers' parts of these classes take each document of the row alone."""
    for part in {id(part): part for part in layer_parts(backbone)}.values():
        if type(part).__name__ in classes:
            part.forward = functools.partial(_each_document, part.forward, row)


@torch.compiler.disable(reason="it goes by the lengths of the documents")
def _each_document(forward: Callable[..., Any], row: Row, *args: Any, **kwargs: Any) -> Any:
    lengths = row.lengths
    if lengths is None or len(lengths) == 1:
        return forward(*args, **kwargs)
    row.lengths = None  # a part of this part is not to separate them again
    try:
        return call_by_document(forward, lengths, args, kwargs)
    finally:
        row.lengths = lengths


def call_by_document(forward: Callable[..., Any], lengths: list[int], args: Any, kwargs: Any) -> Any:
    """Calls with each document's share of all tensors [1, T, ...], and joins what is returned for them."""
    outputs, start, total = [], 0, sum(lengths)
    for length in lengths:
        share = functools.partial(_share, start=start, length=length, total=total)
        outputs.append(forward(*tree_map(share, args), **tree_map(share, kwargs)))
        start += length
    leaves, structures = zip(*(tree_flatten(output) for output in outputs), strict=True)
    joined = [_join(parts, lengths) for parts in zip(*leaves, strict=True)]
    return tree_unflatten(joined, structures[0])


def _share(value: Any, start: int, length: int, total: int) -> Any:
    if isinstance(value, DocumentBounds):
        return DocumentBounds([length], torch.tensor([0, length], dtype=torch.int32, device=value.offsets.device))
    if isinstance(value, torch.Tensor) and value.ndim >= 2 and value.shape[:2] == (1, total):
        return value.narrow(1, start, length)
    return value


def _join(parts: tuple[Any, ...], lengths: list[int]) -> Any:
    by_token = all(isinstance(each, torch.Tensor) and each.ndim >= 2 for each in parts)
    return torch.cat(parts, dim=1) if by_token and [each.shape[1] for each in parts] == lengths else parts[0]
