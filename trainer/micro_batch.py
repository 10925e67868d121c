"""How many examples fit into one forward and backward pass: batch.micro_batch_size = "auto"."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dataset.document import Document
from trainer.device import peak_memory

_USABLE = 0.8
"""Of the free memory. The rest is for what no probe sees: the optimizer's state, fragments, other programs."""


def largest_micro_batch(
    documents: Sequence[Document],
    probe: Callable[[Sequence[Document]], object],
    agree: Callable[[float], float],
    device: torch.device,
    free: int,
) -> int:
    """The largest of 1, 2, 4, ..., len(documents) that fits into `free` bytes of the device, by forecast: each is tried
    only if it is to fit, so that none runs out of memory. 1 is not forecast: there is nothing smaller to take.

    `documents` are those of worst_case. `probe` runs a forward and a backward pass over some, and drops the gradients;
    it may use random numbers. `agree` gives the largest value that any rank has: all ranks call this together, make the
    same probes, and get the same answer.
    """
    forget_peak(device)
    base = peak_memory(device)
    growths = {0: 0}
    micro_batch = 1
    while True:
        forget_peak(device)
        probe(documents[:micro_batch])
        growths[micro_batch] = max(0, peak_memory(device) - base)
        larger = min(2 * micro_batch, len(documents))
        if larger == micro_batch or agree(forecast(growths, larger) / max(1, free)) > _USABLE:
            return micro_batch
        micro_batch = larger


def forecast(growths: dict[int, int], size: int) -> float:
    """Bytes that `size` examples will take, on the line through what the last two sizes took, in rising order. At least
    what the last one took: memory that an earlier probe has left is used again."""
    (before, earlier), (last, latest) = list(growths.items())[-2:]
    per_example = (latest - earlier) / (last - before)
    return latest + max(0.0, per_example) * (size - last)


def worst_case(documents: Sequence[Document], count: int) -> list[Document]:
    """`count` documents, or as many as there are, that take no less memory than any so many of the given ones: the
    longest, the longest first, with the largest numbers of supervised tokens that any have."""
    sizes = [(document.length, document.targets) for document in documents]
    longest = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:count]
    most_targets = sorted((targets for _, targets in sizes), reverse=True)[:count]
    worst = []
    for index, targets in zip(longest, most_targets, strict=True):
        input_ids = documents[index].input_ids
        worst.append(Document(input_ids, [False] * (len(input_ids) - targets) + [True] * targets))
    return worst


def forget_peak(device: torch.device) -> None:
    """From now on peak_memory is the most since now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def free_memory(device: torch.device, local_ranks: int) -> int:
    """Bytes that this rank may still take: of its GPU, or its part of the machine's memory among its ranks there."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    available = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    own = Path("/proc/self/cgroup").read_text().partition("0::/")[2].split("\n")[0]
    return min([available, *_free_in_cgroup(Path("/sys/fs/cgroup"), own)]) // local_ranks


def _free_in_cgroup(root: Path, own: str) -> list[int]:
    """Bytes below the limit of each control group (version 2) that the process is in. Pages of files, which the kernel
    gives up when it needs room, count as free."""
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
