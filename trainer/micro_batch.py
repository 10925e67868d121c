"""Finds how many examples fit into one forward and backward pass: batch.micro_batch_size = "auto"."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from dataset.document import Document
from trainer.data.items import Item, Pair, Rating
from trainer.device import peak_memory

T = TypeVar("T")

_USABLE = 0.8
"""Share of the free memory. The rest is for what no probe sees: the optimizer's state, fragmentation, other
programs."""


def largest_micro_batch(
    items: Sequence[T],
    probe: Callable[[Sequence[T]], object],
    agree: Callable[[float], float],
    device: torch.device,
    free: int,
) -> int:
    """The largest of 1, 2, 4, ..., len(items) that fits into `free` bytes of the device.

    Each size is tried only if the forecast says that it fits, so that no probe runs out of memory. Size 1 is not
    forecast, since nothing smaller exists. `items` come from worst_case_items. `probe` runs a forward and a backward
    pass over some of them and drops the gradients; it may use random numbers. `agree` returns the largest value of any
    rank: all ranks call this together, make the same probes and get the same answer.
    """
    reset_peak_memory(device)
    base = peak_memory(device)
    growths = {0: 0}
    micro_batch = 1
    while True:
        reset_peak_memory(device)
        probe(items[:micro_batch])
        growths[micro_batch] = max(0, peak_memory(device) - base)
        larger = min(2 * micro_batch, len(items))
        if larger == micro_batch or agree(forecast(growths, larger) / max(1, free)) > _USABLE:
            return micro_batch
        micro_batch = larger


def forecast(growths: dict[int, int], size: int) -> float:
    """Bytes that `size` examples will take, extrapolated linearly from the last two sizes (in rising order). At least
    what the last size took, since memory from earlier probes is reused."""
    (before, earlier), (last, latest) = list(growths.items())[-2:]
    per_example = (latest - earlier) / (last - before)
    return latest + max(0.0, per_example) * (size - last)


def worst_case_items(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items, or all if there are fewer, that need at least as much memory as any `count` of the given ones: the
    longest, in falling order, with the largest numbers of supervised tokens of any."""
    sizes = [(item.length, item.targets) for item in items]
    longest = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:count]
    most_targets = sorted((targets for _, targets in sizes), reverse=True)[:count]
    return [_with_targets(items[index], targets) for index, targets in zip(longest, most_targets, strict=True)]


def _with_targets(item: Item, targets: int) -> Item:
    """The item with so many supervised tokens; those of a pair in as few of its documents as have room for them."""
    if isinstance(item, Pair):
        of_chosen = min(targets, item.chosen.length)
        of_rejected = min(max(1, targets - of_chosen), item.rejected.length)
        return Pair(_learn_last(item.chosen, of_chosen), _learn_last(item.rejected, of_rejected))
    if isinstance(item, Rating):
        return Rating(_learn_last(item.answer, targets), item.other, item.desirable)
    return _learn_last(item, targets)


def _learn_last(document: Document, targets: int) -> Document:
    length = len(document.input_ids)
    return Document(document.input_ids, [False] * (length - targets) + [True] * targets)


def reset_peak_memory(device: torch.device) -> None:
    """Makes peak_memory the maximum from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def free_memory(device: torch.device, local_ranks: int) -> int:
    """Bytes that this rank may still use: of its GPU, or its share of the machine's memory."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].split("\n")[0]
    return min([available, *_free_in_cgroup(Path("/sys/fs/cgroup"), own)]) // local_ranks


def _free_in_cgroup(root: Path, own: str) -> list[int]:
    """Bytes below the limit of each control group (version 2) of the process. File pages, which the kernel drops when
    it needs room, count as free."""
    group = root / own
    free = []
    for folder in (group, *group.parents):
        limit = folder / "memory.max"
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            files = int((folder / "memory.stat").read_text().partition("\ninactive_file ")[2].split()[0])
            free.append(int(most) - int((folder / "memory.current").read_text()) + files)
        if folder == root:
            break
    return free
