"""A tokenised dataset as a few flat tensors: what the cache keeps, and what a job's documents are read from."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch

from dataset.document import Document


@dataclass(frozen=True)
class Tokens:
    """E examples in D documents of T tokens in all, uncut, with R runs of supervised tokens."""

    ids: torch.Tensor
    """[T] int32"""
    documents: torch.Tensor
    """[D + 1] int64: where in ids each document begins, and T."""
    examples: torch.Tensor
    """[E + 1] int64: where in documents each example's begin, and D."""
    runs: torch.Tensor
    """[R, 2] int32: begin and end, within its document, of each run of supervised tokens."""
    document_runs: torch.Tensor
    """[D + 1] int64: where in runs each document's begin, and R."""


def flatten(examples: Iterable[Iterable[Document]]) -> Tokens:
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
    )


def _runs(supervised: list[bool]) -> Iterator[tuple[int, int]]:
    flags = bytes(supervised) + b"\0"
    begin = flags.find(1)
    while begin >= 0:
        end = flags.find(0, begin)
        yield begin, end
        begin = flags.find(1, end)


def _tensor(numbers: "array[int]", dtype: torch.dtype) -> torch.Tensor:
    # Torch takes no empty buffer.
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def cut(tokens: Tokens, max_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What is left of each document once it is cut at its end to max_length tokens, and after its last supervised one:
    nothing there can reach the loss. [D] tokens, and how many of them are supervised, [D], both int64."""
    count = len(tokens.documents) - 1
    document = torch.repeat_interleave(torch.arange(count), tokens.document_runs.diff())
    begins, ends = tokens.runs.long().clamp(max=max_length).unbind(1)
    targets = torch.zeros(count, dtype=torch.int64).index_add_(0, document, ends - begins)
    ends = torch.where(begins < ends, ends, 0)
    return torch.zeros(count, dtype=torch.int64).scatter_reduce_(0, document, ends, "amax"), targets


def last_learned(tokens: Tokens) -> set[int]:
    """The ids with which runs of supervised tokens end."""
    document = torch.repeat_interleave(torch.arange(len(tokens.documents) - 1), tokens.document_runs.diff())
    ends = tokens.documents[document] + tokens.runs[:, 1]
    return set(tokens.ids[ends - 1].unique().tolist())


class Documents(Sequence[Document]):
    """N of the documents, each cut to its length, and made when it is asked for. A slice is a Documents as well."""

    def __init__(self, tokens: Tokens, rows: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor) -> None:
        """[N] each: which documents, to how many tokens they are cut, and how many of these are supervised."""
        self._tokens = tokens
        self._rows = rows
        self._lengths = lengths
        self._targets = targets

    @property
    def targets(self) -> int:
        """Number of supervised tokens in all of them."""
        return int(self._targets.sum())

    def first_beyond(self, limit: int) -> tuple[int, int] | None:
        """The first example, by its number in the file from 1, that has an id of `limit` or more, and the id."""
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
    def __getitem__(self, index: slice) -> "Documents": ...
    def __getitem__(self, index: int | slice) -> "Document | Documents":
        if isinstance(index, slice):
            chosen = torch.arange(*index.indices(len(self)))
            return Documents(self._tokens, self._rows[chosen], self._lengths[chosen], self._targets[chosen])
        row, length = int(self._rows[index]), int(self._lengths[index])
        begin = int(self._tokens.documents[row])
        first_run, last_run = self._tokens.document_runs[row : row + 2].tolist()
        supervised = [False] * length
        for run_begin, run_end in self._tokens.runs[first_run:last_run].clamp(max=length).tolist():
            supervised[run_begin:run_end] = [True] * (run_end - run_begin)
        return Document(self._tokens.ids[begin : begin + length].tolist(), supervised)
