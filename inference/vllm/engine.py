"""Has vLLM answer: each answer is a streamed request of its own, with the tokens of the prompt as training has them."""

import asyncio
import logging
import subprocess
import threading
import time
from collections.abc import Coroutine
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import ValidationError

from contract.failure import InputError
from contract.inference import Refusal, ScoredToken
from inference.answers import Answers, finite
from inference.engine import FULL, MOST_WAITING, STOPPING, cut_off, refused
from inference.row import AnswerRow
from inference.scoring import Scoring
from inference.vllm.adapters import VllmAdapters
from inference.vllm.wire import Logprobs, Vllm, VllmError

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25
_TOKEN = "token_id:"


class VllmEnded(Exception):
    """vLLM has ended by itself."""


class VllmEngine:
    """All requests are tasks of one event loop, in the thread that calls `run`."""

    room = float("inf")
    """vLLM itself has those wait that find no room."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", vllm: Vllm, adapters: VllmAdapters, most: int, context: int
    ) -> None:
        """vLLM makes `most` answers at once, of at most `context` tokens with their prompts."""
        self._process = process
        self._vllm = vllm
        self._adapters = adapters
        self._most = most
        self._context = context
        self._events = asyncio.new_event_loop()
        self._changed = threading.Lock()
        self._tasks: dict[asyncio.Task[None], Answers | Scoring] = {}
        self._under_way = 0
        """Requests, with those that are no tasks yet."""
        self._stopping = False
        self._used_at = time.monotonic()

    def submit(self, answers: Answers) -> Refusal | None:
        with self._changed:
            if self._stopping:
                return STOPPING
            if self._under_way >= self._most + MOST_WAITING:
                return FULL
            self._begin(self._answer(answers), answers)
        return None

    def score(self, scoring: Scoring) -> None:
        with self._changed:
            if self._stopping:
                scoring.result.put(STOPPING)
                return
            self._begin(self._score(scoring), scoring)

    def _begin(self, work: Coroutine[Any, Any, None], of: Answers | Scoring) -> None:
        self._under_way += 1

        def begin() -> None:
            task = self._events.create_task(work)
            self._tasks[task] = of
            task.add_done_callback(self._done)

        self._events.call_soon_threadsafe(begin)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        with self._changed:
            self._under_way -= 1
        self._used_at = time.monotonic()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True

    def run(self, idle_seconds: float) -> None:
        """Raises VllmEnded."""
        try:
            self._events.run_until_complete(self._watch(idle_seconds))
        finally:
            self.stop()
            self._events.run_until_complete(self._end())
            self._events.close()

    async def _watch(self, idle_seconds: float) -> None:
        while not self._is_over(idle_seconds):
            for task, of in self._tasks.items():
                if of.cancelled:
                    task.cancel()
            if (code := self._process.poll()) is not None:
                raise VllmEnded(f"vLLM has ended with {code}")
            await asyncio.sleep(_POLL_SECONDS)

    def _is_over(self, idle_seconds: float) -> bool:
        with self._changed:
            if self._under_way:
                return False
            self._stopping = self._stopping or time.monotonic() - self._used_at >= idle_seconds
            return self._stopping

    async def _end(self) -> None:
        for task, of in [*self._tasks.items()]:
            task.cancel()
            _fail(of, cut_off(VllmEnded()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._vllm.close()

    async def _answer(self, answers: Answers) -> None:
        try:
            async with self._adapters.using(answers.adapter) as model, asyncio.TaskGroup() as group:
                rows = [AnswerRow(model, [*answers.prompt], answers.sampling, index) for index in range(answers.n)]
                for row in rows:
                    group.create_task(self._stream(answers, rows, row))
        except* Exception as errors:
            _fail(answers, _refusal(_first(errors)))

    async def _stream(self, answers: Answers, rows: list[AnswerRow], row: AnswerRow) -> None:
        """Adds the tokens of an answer until it ends, which may be before vLLM's does. Raises what Vllm raises."""
        async with aclosing(self._vllm.complete(_body(answers, row))) as parts:
            async for part in parts:
                if not answers.has_begun:  # vLLM may refuse a request in the place of its first part
                    answers.begin_rows(rows)
                for number, token in enumerate(part.token_ids):
                    row.tokens.append(token)
                    scored = None if part.logprobs is None else _scored(answers, token, part.logprobs, number)
                    answers.add(row, token, scored)
                    if row not in answers.rows:
                        return
        raise VllmError(HTTPStatus.INTERNAL_SERVER_ERROR, "vLLM ended an answer before its end")

    async def _score(self, scoring: Scoring) -> None:
        tokens = scoring.document.input_ids
        try:
            if len(tokens) > self._context:
                scoring.result.put(_too_long(len(tokens), self._context))
                return
            async with self._adapters.using(scoring.adapter) as model:
                found = await self._vllm.logprobs(model, tokens)
            flags = scoring.document.supervised[1:]
            scoring.result.put(-sum(logprob for logprob, flag in zip(found, flags, strict=True) if flag))
        except Exception as error:
            scoring.result.put(_refusal(error))


def _body(answers: Answers, row: AnswerRow) -> dict[str, Any]:
    sampling = answers.sampling
    body = {
        "model": row.adapter,
        "prompt": answers.prompt,
        "max_tokens": answers.most,
        "temperature": 0 if row.is_greedy else sampling.temperature,
        "top_p": 1 if row.is_greedy else sampling.top_p,
        # Ours alone: vLLM knows no adapter's end tokens.
        "ignore_eos": True,
        "stop_token_ids": sorted(answers.tokens.ends),
    }
    optional = {"seed": row.seed, "logprobs": sampling.logprobs}
    return body | {name: value for name, value in optional.items() if value is not None}


def _scored(answers: Answers, token: int, logprobs: Logprobs, number: int) -> ScoredToken:
    top = [(int(name.removeprefix(_TOKEN)), value) for name, value in logprobs.top_logprobs[number].items()]
    # The token itself is among them, whether it is one of the most likely or not.
    most_likely = sorted(top, key=lambda each: -each[1])[: answers.sampling.logprobs]
    return ScoredToken(
        text=answers.text_of(token),
        logprob=finite(logprobs.token_logprobs[number]),
        top=[(answers.text_of(each), finite(value)) for each, value in most_likely],
    )


def _fail(of: Answers | Scoring, refusal: Refusal) -> None:
    if isinstance(of, Answers):
        of.fail(refusal)
    else:
        of.result.put(refusal)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _refusal(error: Exception) -> Refusal:
    match error:
        case InputError():
            return refused(error)
        case VllmError(status=HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY):
            return Refusal(code="invalid_request", message=f"vLLM refuses the request: {error}")
        case httpx.TransportError():
            message = "the answer was cut off: vLLM has ended, or is silent; send the request again"
            return Refusal(code="answer_failed", message=message, retry=True)
        case VllmError() | ValidationError():
            log.error("vLLM failed: %s", error)
        case _:
            log.error("an answer of vLLM failed", exc_info=error)
    return cut_off(error)


def _too_long(length: int, context: int) -> Refusal:
    message = (
        f"max_length: an example has {length} tokens, and vLLM reads {context} of this model at most; lower max_length"
    )
    return Refusal(code="context_length_exceeded", message=message, param="max_length")
