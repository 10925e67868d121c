"""Evaluates examples: the loss and the answer of the base model and of an adapter, several examples at once."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.evaluation import EvaluatedExample, EvaluationEnd, EvaluationRequest, ModelAnswer
from contract.failure import FailureCode, InputError
from contract.inference import Alive, Done, Piece, Refusal, Sampling
from inference.alive import next_of, result_of
from inference.answers import Answers
from inference.engine import FULL, AnswerEngine
from inference.example_tokens import ExampleTokens, read_example_tokens
from inference.prompts import DocumentTokens, Prompts, Refused
from inference.scoring import Scoring
from trainer.sample import Prompt, sample_prompts

_AT_ONCE = 4
"""Examples under way. Others who want answers shall find room beside them."""
_LONGEST_PROMPT = 4_000
"""Most characters of it that are reported."""
_SECONDS_TO_WAIT = 0.5

Lines = Generator[Alive | EvaluatedExample | EvaluationEnd, None, None]


def evaluate(prompts: Prompts, engine: AnswerEngine, request: EvaluationRequest) -> Lines:
    """What is under way is cancelled when the iterator is closed. Raises InputError, Refused."""
    tokens = prompts.document_tokens(Path(request.adapter), request.dataset.chat_template)
    max_length = min(request.max_length, tokens.positions or request.max_length)
    under_way: deque[_UnderWay] = deque()
    read = _Read()
    examples = _examples_to_do(tokens, request, max_length, read)
    try:
        # In a thread of its own: to read a large file, or to pass what is done, may take minutes.
        with ThreadPoolExecutor(1, "examples") as reader:
            while (example := (yield from result_of(reader.submit(next, examples, None)))) is not None:
                under_way.append(_prepare(example, Path(request.adapter)))
                yield from _begin(engine, tokens, under_way[-1], request)
                if len(under_way) == _AT_ONCE:
                    yield from _finish(under_way, tokens)
        while under_way:
            yield from _finish(under_way, tokens)
    finally:
        for each in under_way:
            each.cancel()
    if read.dropped == read.found:
        message = f"dataset: none of its {read.found} examples has an answer within {max_length} tokens; shorten them"
        raise InputError(FailureCode.DATASET_INVALID, message, "dataset")
    yield EvaluationEnd(dropped=read.dropped)


@dataclass
class _Read:
    """Counts of the examples that were read."""

    found: int = 0
    dropped: int = 0


def _examples_to_do(
    tokens: DocumentTokens, request: EvaluationRequest, max_length: int, read: _Read
) -> Iterator[ExampleTokens]:
    """Those behind `request.after` with something to learn. Raises InputError."""
    for example in read_example_tokens(tokens.tokenizer, request.dataset, max_length, request.limit):
        read.found += 1
        read.dropped += not example.documents
        if example.number > request.after and example.documents:
            yield example


@dataclass
class _OfModel:
    """What one of the two models does with an example."""

    adapter: Path | None
    scorings: list[Scoring]
    answers: Answers | None = None
    """None where there is no room for an answer."""


@dataclass(frozen=True)
class _UnderWay:
    example: ExampleTokens
    prompt: Prompt
    base: _OfModel
    adapter: _OfModel

    def cancel(self) -> None:
        for of_model in (self.base, self.adapter):
            for scoring in of_model.scorings:
                scoring.cancelled = True
            if of_model.answers is not None:
                of_model.answers.cancelled = True


def _prepare(example: ExampleTokens, adapter: Path) -> _UnderWay:
    # The last document has the last answer; the others end with earlier ones.
    (prompt,) = sample_prompts(example.documents[-1:], 1)
    base, adapted = (_OfModel(each, [Scoring(one, each) for one in example.documents]) for each in (None, adapter))
    return _UnderWay(example, prompt, base, adapted)


def _begin(
    engine: AnswerEngine, tokens: DocumentTokens, under_way: _UnderWay, request: EvaluationRequest
) -> Generator[Alive, None, None]:
    """Raises Refused."""
    for of_model in (under_way.base, under_way.adapter):
        for scoring in of_model.scorings:
            engine.score(scoring)
        most = _most_tokens(engine, tokens, len(under_way.prompt.input_ids), request.max_new_tokens)
        if most > 0:
            sampling = Sampling(temperature=request.temperature, seed=request.seed)
            ids, adapter = under_way.prompt.input_ids, of_model.adapter
            of_model.answers = Answers(ids, most, adapter, tokens.of_answers, sampling, n=1)
            yield from _submit(engine, of_model.answers)


def _most_tokens(engine: AnswerEngine, tokens: DocumentTokens, prompt: int, wanted: int) -> int:
    """Of the answer to a prompt of so many tokens: what the model's context and the device's memory have room for."""
    room = engine.room if tokens.context is None else min(engine.room, tokens.context)
    return int(min(wanted, room - prompt))


def _submit(engine: AnswerEngine, answers: Answers) -> Generator[Alive, None, None]:
    """Waits while too many others ask. Raises Refused."""
    while (refusal := engine.submit(answers)) is not None:
        if refusal is not FULL:
            raise Refused(refusal)
        yield Alive()
        time.sleep(_SECONDS_TO_WAIT)


def _finish(under_way: "deque[_UnderWay]", tokens: DocumentTokens) -> Lines:
    """The first of them, once all of it is done. Raises Refused."""
    first, found = under_way[0], []
    supervised = sum(document.targets for document in first.example.documents)
    for of_model in (first.base, first.adapter):
        loss = yield from _sum(of_model.scorings)
        text, finish = yield from _answer(of_model.answers)
        found.append(ModelAnswer(loss=loss / supervised, answer=text, finish=finish))
    yield EvaluatedExample(
        number=first.example.number,
        prompt=_text(tokens, first.prompt.input_ids)[-_LONGEST_PROMPT:],
        reference=_text(tokens, first.prompt.expected),
        supervised_tokens=supervised,
        base=found[0],
        adapter=found[1],
    )
    under_way.popleft()


def _sum(scorings: Iterable[Scoring]) -> Generator[Alive, None, float]:
    """Of their losses. Raises Refused."""
    loss = 0.0
    for scoring in scorings:
        result = yield from next_of(scoring.result)
        if isinstance(result, Refusal):
            raise Refused(result)
        loss += result
    return loss


def _text(tokens: DocumentTokens, ids: Iterable[int]) -> str:
    return tokens.tokenizer.decode([*ids], skip_special_tokens=True)


def _answer(answers: Answers | None) -> Generator[Alive, None, tuple[str, Literal["stop", "length"]]]:
    """Its text, and how it ended. Raises Refused."""
    text = ""
    ended_by_model = False
    while answers is not None:
        line = yield from next_of(answers.lines)
        match line:
            case Refusal():
                raise Refused(line)
            case Piece():
                text += line.text
                ended_by_model = line.finish == "stop"
            case Done():
                break
    return text, "stop" if ended_by_model else "length"
