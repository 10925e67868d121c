"""Requests on their way through the server: checked, tokenised, and turned into pieces of text."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from contract.inference import Call, Done, Line, Piece, PromptTokens, Refusal, Sampling, ScoredToken
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tool_calls import BEGIN, find_calls
from inference.row import AnswerRow
from inference.text import AnswerText


@dataclass(frozen=True)
class AnswerTokens:
    """How an adapter reads and ends texts."""

    tokenizer: FolderTokenizer
    ends: frozenset[int]
    """Tokens at which an answer ends."""


_LEAST_LOGPROB = -9999.0
"""OpenAI's, for a token that is impossible. JSON has no infinity."""


@dataclass(eq=False)
class Answers:
    """The `n` answers to one request. `lines` are for its reader, who sets `cancelled` on leaving."""

    prompt: list[int]
    most: int
    """Most tokens of each answer."""
    adapter: Path | None
    tokens: AnswerTokens
    sampling: Sampling
    n: int
    finds_calls: bool = False
    lines: "queue.SimpleQueue[Line]" = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False
    rows: list[AnswerRow] = field(default_factory=list)
    _texts: dict[AnswerRow, AnswerText] = field(default_factory=dict)
    _spent: int = 0

    @property
    def longest(self) -> int:
        """Most tokens of one answer with its prompt."""
        return len(self.prompt) + self.most

    @property
    def has_begun(self) -> bool:
        return bool(self._texts)

    def begin(self, adapter: str) -> list[AnswerRow]:
        """Its rows, once the adapter is loaded."""
        self.begin_rows([AnswerRow(adapter, [*self.prompt], self.sampling, index) for index in range(self.n)])
        return [*self.rows]

    def begin_rows(self, rows: Sequence[AnswerRow]) -> None:
        hold_from = BEGIN if self.finds_calls else None
        for row in rows:
            self._texts[row] = AnswerText(self.tokens.tokenizer, self.sampling.stop, hold_from)
        self.rows += rows
        self.lines.put(PromptTokens(tokens=len(self.prompt)))

    def take(self, row: AnswerRow, logits: torch.Tensor) -> None:
        """Chooses the row's next token, and adds it."""
        token = row.choose(logits)
        self.add(row, token, None if self.sampling.logprobs is None else self._score(token, logits))

    def add(self, row: AnswerRow, token: int, scored: ScoredToken | None) -> None:
        """Reports the last one of the row's tokens. The row is removed once its answer has ended."""
        self._spent += 1
        text = self._texts[row]
        ends = token in self.tokens.ends
        shown = "" if ends else text.add(token)
        tokens = [] if ends or scored is None else [scored]
        if ends or text.stopped:
            self._finish(row, shown + text.end(), tokens, "stop")
        elif len(row.tokens) - len(self.prompt) >= self.most:
            self._finish(row, shown + text.end(), tokens, "length")
        elif shown or tokens:
            self.lines.put(Piece(index=row.index, text=shown, tokens=tokens))

    def _score(self, token: int, logits: torch.Tensor) -> ScoredToken:
        logprobs = torch.log_softmax(logits, dim=-1)
        top = logprobs.topk(min(self.sampling.logprobs or 0, len(logprobs)))
        return ScoredToken(
            text=self.text_of(token),
            logprob=finite(float(logprobs[token])),
            top=[(self.text_of(int(each)), finite(float(value))) for value, each in zip(*top, strict=True)],
        )

    def text_of(self, token: int) -> str:
        return self.tokens.tokenizer.decode([token])

    def _finish(self, row: AnswerRow, text: str, scored: list[ScoredToken], why: str) -> None:
        calls: list[Call] = []
        if held := self._texts[row].held:
            more, calls = find_calls(held)
            text += more if not calls else ""
        finish = "tool_calls" if calls else why
        # mypy: the words are those of the field
        self.lines.put(Piece(index=row.index, text=text, tokens=scored, calls=calls, finish=finish))  # type: ignore[arg-type]
        self.rows.remove(row)
        if not self.rows:
            self.lines.put(Done(tokens=self._spent))

    def fail(self, refusal: Refusal) -> None:
        self.rows.clear()
        self.lines.put(refusal)


def finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
