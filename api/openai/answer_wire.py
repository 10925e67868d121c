"""Puts the lines of an inference server into OpenAI's words, whole or chunk by chunk."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from api.openai.answer_schemas import (
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Delta,
    TokenLogprob,
    TokenUsage,
    ToolCallOut,
    TopLogprob,
)
from contract.inference import Call, Piece, ScoredToken


@dataclass(frozen=True)
class Head:
    """What all chunks of an answer have in common."""

    model: str
    prefix: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.prefix}{secrets.token_hex(12)}")


class Wire(Protocol):
    """The words of one route."""

    head: Head

    def whole(self, pieces: Sequence[Piece], n: int, usage: TokenUsage) -> BaseModel: ...
    def begin(self, index: int) -> BaseModel | None:
        """A chunk before the first piece of an answer."""

    def chunk(self, piece: Piece) -> BaseModel: ...
    def last(self, usage: TokenUsage) -> BaseModel: ...


def usage_of(prompt: int, completion: int) -> TokenUsage:
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class ChatWire:
    def __init__(self, model: str) -> None:
        self.head = Head(model, "chatcmpl-")

    def whole(self, pieces: Sequence[Piece], n: int, usage: TokenUsage) -> ChatCompletion:
        choices = [self._choice(index, [each for each in pieces if each.index == index]) for index in range(n)]
        head = self.head
        return ChatCompletion(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage)

    def _choice(self, index: int, pieces: Sequence[Piece]) -> ChatChoice:
        calls = _calls([call for piece in pieces for call in piece.calls])
        text = "".join(piece.text for piece in pieces)
        return ChatChoice(
            index=index,
            message=AnswerMessage(content=None if calls and not text else text, tool_calls=calls),
            logprobs=_chat_logprobs([token for piece in pieces for token in piece.tokens]),
            finish_reason=pieces[-1].finish,
        )

    def begin(self, index: int) -> ChatChunk:
        return self._chunk([ChatChunkChoice(index=index, delta=Delta(role="assistant", content=""))])

    def chunk(self, piece: Piece) -> ChatChunk:
        delta = Delta(content=piece.text or None, tool_calls=_calls(piece.calls))
        logprobs = _chat_logprobs(piece.tokens)
        choice = ChatChunkChoice(index=piece.index, delta=delta, logprobs=logprobs, finish_reason=piece.finish)
        return self._chunk([choice])

    def last(self, usage: TokenUsage) -> ChatChunk:
        return self._chunk([], usage)

    def _chunk(self, choices: list[ChatChunkChoice], usage: TokenUsage | None = None) -> ChatChunk:
        head = self.head
        return ChatChunk(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage)


class CompletionWire:
    def __init__(self, model: str) -> None:
        self.head = Head(model, "cmpl-")
        self._offsets: dict[int, int] = {}

    def whole(self, pieces: Sequence[Piece], n: int, usage: TokenUsage) -> Completion:
        choices = []
        for index in range(n):
            its = [piece for piece in pieces if piece.index == index]
            tokens = [token for piece in its for token in piece.tokens]
            text = "".join(piece.text for piece in its)
            choices.append(self._choice(Piece(index=index, text=text, tokens=tokens, finish=its[-1].finish)))
        return self._completion(choices, usage)

    def begin(self, index: int) -> None:
        return None

    def chunk(self, piece: Piece) -> Completion:
        return self._completion([self._choice(piece)])

    def last(self, usage: TokenUsage) -> Completion:
        return self._completion([], usage)

    def _choice(self, piece: Piece) -> CompletionChoice:
        logprobs = self._logprobs(piece) if piece.tokens else None
        return CompletionChoice(index=piece.index, text=piece.text, logprobs=logprobs, finish_reason=piece.finish)

    def _logprobs(self, piece: Piece) -> CompletionLogprobs:
        offsets = []
        for token in piece.tokens:
            offsets.append(self._offsets.get(piece.index, 0))
            self._offsets[piece.index] = offsets[-1] + len(token.text)
        return CompletionLogprobs(
            tokens=[token.text for token in piece.tokens],
            token_logprobs=[token.logprob for token in piece.tokens],
            top_logprobs=[dict(token.top) for token in piece.tokens],
            text_offset=offsets,
        )

    def _completion(self, choices: list[CompletionChoice], usage: TokenUsage | None = None) -> Completion:
        head = self.head
        return Completion(id=head.id, created=head.created, model=head.model, choices=choices, usage=usage)


def _calls(calls: Sequence[Call]) -> list[ToolCallOut] | None:
    return [
        ToolCallOut(
            index=index,
            id=f"call_{secrets.token_hex(12)}",
            function=CalledFunction(name=call.name, arguments=_json(call.arguments)),
        )
        for index, call in enumerate(calls)
    ] or None


def _json(arguments: object) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _chat_logprobs(tokens: Sequence[ScoredToken]) -> ChatLogprobs | None:
    scored = [
        TokenLogprob(
            token=token.text,
            logprob=token.logprob,
            bytes=_bytes(token.text),
            top_logprobs=[TopLogprob(token=text, logprob=value, bytes=_bytes(text)) for text, value in token.top],
        )
        for token in tokens
    ]
    return ChatLogprobs(content=scored) if scored else None


def _bytes(text: str) -> list[int] | None:
    """None for a token that ends within a character."""
    return None if "�" in text else list(text.encode())
