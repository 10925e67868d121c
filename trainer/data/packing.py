"""A micro-batch is one row of tokens: its documents one after another, without padding."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from dataset.document import Document
from trainer.data.items import Item, Pair, Rating


@dataclass(frozen=True)
class PackedBatch:
    """Segments of n_1, n_2, ... tokens in a row of T = n_1 + n_2 + ... tokens, with N supervised tokens. A segment is a
    document, or what it does not share with the one before it."""

    input_ids: torch.Tensor
    """[1, T]"""
    position_ids: torch.Tensor
    """[1, T], counted from 0 in each document."""
    lengths: list[int]
    """n_1, n_2, ..."""
    offsets: torch.Tensor
    """[segments + 1] int32, the start of each segment: 0, n_1, n_1 + n_2, ..., T."""
    rows: torch.Tensor
    """[N] positions in 0 .. T - 1 whose next token is supervised."""
    targets: torch.Tensor
    """[N] those next tokens."""
    shared: list[tuple[int, int]] | None = None
    """For each segment, where the beginning that it shares lies in the row, and of how many tokens it is; None if no
    segment shares any."""
    answers: "ComparedAnswers | None" = None
    """None if only the sum over all supervised tokens counts."""

    def to(self, device: torch.device) -> "PackedBatch":
        answers = self.answers
        return replace(
            self,
            **_to_device(self, device),
            answers=None if answers is None else replace(answers, **_to_device(answers, device)),
        )


@dataclass(frozen=True)
class ComparedAnswers:
    """What a method knows of the D documents whose answers it compares or rates."""

    tokens: torch.Tensor
    """[D] int64, the number of each document's supervised tokens."""
    reference: torch.Tensor
    """[D] fp32, log probabilities of the answers before training, in nats."""
    desirable: torch.Tensor
    """[D] bool, the ratings."""
    baseline: torch.Tensor
    """[] fp32, how far the model has moved from the reference, in nats; see trainer.methods.kto."""
    documents_per_item: int


def _to_device(batch: PackedBatch | ComparedAnswers, device: torch.device) -> dict[str, torch.Tensor]:
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    if device.type == "cuda":
        # A copy from pinned memory is the only one that does not wait for the GPU.
        tensors = {name: value.pin_memory() for name, value in tensors.items()}
    return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def pack(items: Sequence[Item], share_prompts: bool = False, baseline: float = 0.0) -> PackedBatch:
    """The items' documents in a row. With `share_prompts`, it has once what both documents of a pair begin with."""
    input_ids: list[int] = []
    position_ids: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    shared: list[tuple[int, int]] = []
    for document, common in _documents(items, share_prompts):
        start = len(input_ids)
        before = start - (lengths[-1] if common else 0)
        input_ids += document.input_ids[common:-1]
        position_ids += range(common, document.length)
        for index, learned in enumerate(document.supervised):
            if learned:
                rows.append(before + index - 1 if index <= common else start + index - 1 - common)
                targets.append(document.input_ids[index])
        lengths.append(document.length - common)
        shared.append((before, common))
    return PackedBatch(
        input_ids=torch.tensor([input_ids], dtype=torch.long),
        position_ids=torch.tensor([position_ids], dtype=torch.long),
        lengths=lengths,
        offsets=torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32),
        rows=torch.tensor(rows, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        shared=shared if any(common for _, common in shared) else None,
        answers=_answers(items, baseline),
    )


def _documents(items: Sequence[Item], share_prompts: bool) -> Iterator[tuple[Document, int]]:
    """Each document, and how many of its first tokens it shares with the one before it."""
    for item in items:
        for index, document in enumerate(item.documents):
            yield document, _common(*item.documents) if share_prompts and index else 0


def _common(one: Document, other: Document) -> int:
    """Number of tokens that both begin with. At least one of each is left."""
    most = min(one.length, other.length) - 1
    pairs = zip(one.input_ids[:most], other.input_ids[:most], strict=True)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), max(0, most))


def _answers(items: Sequence[Item], baseline: float) -> ComparedAnswers | None:
    if not items or isinstance(items[0], Document):
        return None
    reference: list[float] = []
    desirable: list[bool] = []
    for item in items:
        if isinstance(item, Pair):
            reference += item.reference
            desirable += [True, False]
        elif isinstance(item, Rating):
            reference.append(item.reference[0])
            desirable.append(item.desirable)
    return ComparedAnswers(
        tokens=torch.tensor([document.targets for item in items for document in item.documents]),
        reference=torch.tensor(reference, dtype=torch.float32),
        desirable=torch.tensor(desirable),
        baseline=torch.tensor(baseline, dtype=torch.float32),
        documents_per_item=len(items[0].documents),
    )
