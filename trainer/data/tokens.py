"""A tokenised dataset as a few flat tensors. The cache keeps them, and a job reads its documents from them."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch

from dataset.document import Document


@dataclass(frozen=True)
class Tokens:
    """E examples in D documents of T tokens in all, uncut, with R runs of supervised tokens."""

    ids: torch.Tensor
    """[T] int32"""
    documents: torch.Tensor
    """[D + 1] int64: the start of each document in `ids`, and T."""
    examples: torch.Tensor
    """[E + 1] int64: the start of each example in `documents`, and D."""
    runs: torch.Tensor
    """[R, 2] int32: begin and end of each run of supervised tokens, within its document."""
    document_runs: torch.Tensor
    """[D + 1] int64: the start of each document's runs in `runs`, and R."""
    ratings: torch.Tensor
    """[E] bool: whether each answer is rated as good; [0] without ratings."""

    @cached_property
    def digest(self) -> str:
        """Without empty tensors, so that a field which a later release adds changes no digest of data that lack it."""
        sha256 = hashlib.sha256()
        for name, tensor in sorted(vars(self).items()):
            if tensor.numel():
                sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                sha256.update(tensor.flatten().view(torch.uint8).numpy())
        return sha256.hexdigest()


def flatten(examples: Iterable[Iterable[Document]], ratings: Sequence[bool] = ()) -> Tokens:
    """`ratings` are read once the last of the examples has been."""
    ids, runs = array("i"), array("i")
    documents, document_runs, example_documents = array("q", [0]), array("q", [0]), array("q", [0])
    for example in examples:
        for document in example:
            ids.extend(document.input_ids)
            for run in _runs(document.supervised):
                runs.extend(run)
            documents.append(len(ids))
            document_runs.append(len(runs) // 2)
        example_documents.append(len(documents) - 1)
    return Tokens(
        ids=_tensor(ids, torch.int32),
        documents=_tensor(documents, torch.int64),
        examples=_tensor(example_documents, torch.int64),
        runs=_tensor(runs, torch.int32).view(-1, 2),
        document_runs=_tensor(document_runs, torch.int64),
        ratings=torch.tensor(list(ratings), dtype=torch.bool),
    )


def _runs(supervised: list[bool]) -> Iterator[tuple[int, int]]:
    flags = bytes(supervised) + b"\0"
    begin = flags.find(1)
    while begin >= 0:
        end = flags.find(0, begin)
        yield begin, end
        begin = flags.find(1, end)


def _tensor(numbers: "array[int]", dtype: torch.dtype) -> torch.Tensor:
    # torch does not accept an empty buffer.
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def truncate_documents(tokens: Tokens, max_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Length [D] of each document, and how many of its tokens are supervised [D], both int64. Documents are cut to
    max_length tokens and after the last supervised one, since nothing behind it affects the loss."""
    count = len(tokens.documents) - 1
    document = torch.repeat_interleave(torch.arange(count), tokens.document_runs.diff())
    begins, ends = tokens.runs.long().clamp(max=max_length).unbind(1)
    targets = torch.zeros(count, dtype=torch.int64).index_add_(0, document, ends - begins)
    ends = torch.where(begins < ends, ends, 0)
    return torch.zeros(count, dtype=torch.int64).scatter_reduce_(0, document, ends, "amax"), targets


def final_supervised_ids(tokens: Tokens) -> set[int]:
    """The ids that end runs of supervised tokens."""
    document = torch.repeat_interleave(torch.arange(len(tokens.documents) - 1), tokens.document_runs.diff())
    ends = tokens.documents[document] + tokens.runs[:, 1]
    return set(tokens.ids[ends - 1].unique().tolist())


class TokenDocuments(Sequence[Document]):
    """N of the documents, each cut to its length and built on access. A slice is a TokenDocuments too."""

    def __init__(self, tokens: Tokens, rows: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor) -> None:
        """[N] each: the document's number, its length after the cut, and its supervised tokens."""
        self._tokens = tokens
        self._rows = rows
        self._lengths = lengths
        self._targets = targets

    reference = torch.zeros(0, 2)
    """Documents that are learned alone are compared with nothing."""

    @property
    def targets(self) -> int:
        """Number of supervised tokens in all documents."""
        return int(self._targets.sum())

    def first_beyond(self, limit: int) -> tuple[int, int] | None:
        """The first example, by its number in the file from 1, with an id of at least `limit`, and that id."""
        if not len(self._tokens.ids) or int(self._tokens.ids.max()) < limit:
            return None
        for row in self._rows.argsort().tolist():
            highest = max(self[row].input_ids)
            if highest >= limit:
                return int(torch.searchsorted(self._tokens.examples, self._rows[row], right=True)), highest
        return None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> "TokenDocuments": ...
    def __getitem__(self, index: int | slice) -> "Document | TokenDocuments":
        if isinstance(index, slice):
            chosen = torch.arange(*index.indices(len(self)))
            return TokenDocuments(self._tokens, self._rows[chosen], self._lengths[chosen], self._targets[chosen])
        row, length = int(self._rows[index]), int(self._lengths[index])
        begin = int(self._tokens.documents[row])
        first_run, last_run = self._tokens.document_runs[row : row + 2].tolist()
        supervised = [False] * length
        for run_begin, run_end in self._tokens.runs[first_run:last_run].clamp(max=length).tolist():
            supervised[run_begin:run_end] = [True] * (run_end - run_begin)
        return Document(self._tokens.ids[begin : begin + length].tolist(), supervised)
