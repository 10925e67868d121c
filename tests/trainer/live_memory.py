"""Counts the bytes of the tensors that are alive while a model trains: what torch.cuda.max_memory_allocated tells on a
GPU. What malloc makes of it is another matter."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.packing import pack
from trainer.engines.optim import clip_gradients, make_optimizer
from trainer.model.trained_model import TrainedModel


class LiveMemory(TorchDispatchMode):
    """Of the storages that operations make within it; none of those that are there before counts."""

    def __init__(self, before: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata: 0 for tensor in before}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, storage: int) -> None:
        self.now -= self._known.pop(storage)


def documents(lengths: list[int], targets: int) -> list[Document]:
    """Of so many tokens that the model reads, the last `targets` of which are learned."""
    return [Document([5] * (length + 1), [False] * (length + 1 - targets) + [True] * targets) for length in lengths]


def peak_of_two_steps(module: TrainedModel, recipe: Recipe, row: list[Document]) -> int:
    """Bytes of all tensors, at most: the model's own, and what two optimizer steps of one pass make."""
    module.train()
    held = [*module.parameters(), *module.buffers()]
    own = sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in held}.values())
    optimizer = make_optimizer(module.named_parameters(), recipe.optimizer)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    batch = pack(row)
    with LiveMemory(held) as live:
        for _ in range(2):
            module(batch)[0].backward()
            clip_gradients(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return own + live.peak
