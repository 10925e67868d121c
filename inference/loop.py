"""Decodes for all requests at once. New requests join between two tokens; one thread alone calls the model."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from contract.failure import InputError
from contract.inference import Refusal
from inference.adapters import Adapters
from inference.answers import Answers
from inference.batch import PaddedBatch, Singles
from inference.engine import FULL, MOST_WAITING, STOPPING, cut_off, refused
from inference.row import AnswerRow
from inference.scoring import Scoring, loss_of

log = logging.getLogger(__name__)


class Loop:
    def __init__(
        self, adapters: Adapters, most: int, kind: Callable[[Adapters], PaddedBatch | Singles], room: float
    ) -> None:
        """`most` answers are made at once. With their prompts, and padded to the longest, they never have more than
        `room` tokens."""
        self._adapters = adapters
        self._most = most
        self._kind = kind
        self.room = room
        self._waiting: deque[Answers] = deque()
        self._scorings: deque[Scoring] = deque()
        self._batches: dict[str, PaddedBatch | Singles] = {}
        self._of: dict[AnswerRow, Answers] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._used_at = time.monotonic()

    def submit(self, answers: Answers) -> Refusal | None:
        """Why it is not taken; None if it is."""
        with self._changed:
            if self._stopping:
                return STOPPING
            if answers.n * answers.longest > self.room:
                return _too_long(answers, self.room)
            if len(self._waiting) >= MOST_WAITING:
                return FULL
            self._waiting.append(answers)
            self._changed.notify()
        return None

    def score(self, scoring: Scoring) -> None:
        """Its result comes between two tokens of the answers under way."""
        with self._changed:
            if self._stopping:
                scoring.result.put(STOPPING)
                return
            self._scorings.append(scoring)
            self._changed.notify()

    def stop(self) -> None:
        """Takes no further request, and ends after those that are under way."""
        with self._changed:
            self._stopping = True
            while self._waiting:
                self._waiting.popleft().fail(STOPPING)
            while self._scorings:
                self._scorings.popleft().result.put(STOPPING)
            self._changed.notify()

    @torch.inference_mode()
    def run(self, idle_seconds: float) -> None:
        """Returns once it has been idle for so long, or was stopped."""
        while self._await_work(idle_seconds):
            self._drop([row for row, answers in self._of.items() if answers.cancelled])
            self._admit()
            self._score_next()
            for group, batch in list(self._batches.items()):
                self._guarded(batch.rows, lambda batch=batch: self._step(batch))  # type: ignore[misc]
                if not batch.rows:
                    del self._batches[group]
            self._used_at = time.monotonic()

    def _await_work(self, idle_seconds: float) -> bool:
        with self._changed:
            while not self._waiting and not self._of and not self._scorings:
                left = self._used_at + idle_seconds - time.monotonic()
                if self._stopping or left <= 0:
                    self._stopping = True
                    return False
                self._changed.wait(left)
        return True

    def _admit(self) -> None:
        """Lets in requests in their order, while there is room."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                answers = self._waiting[0]
                if not answers.cancelled and self._of and not self._fits(answers):
                    return
                self._waiting.popleft()
            if not answers.cancelled and not self._begin(answers):
                with self._changed:
                    self._waiting.appendleft(answers)
                return

    def _fits(self, answers: Answers) -> bool:
        """Whether it finds room beside those under way, should all of them become as long as they may."""
        count = len(self._of) + answers.n
        longest = max(each.longest for each in (answers, *self._of.values()))
        return count <= self._most and count * longest <= self.room

    def _begin(self, answers: Answers) -> bool:
        """False while its adapter finds no room."""
        in_use = {row.adapter for row in self._of}
        try:
            name = self._adapters.load(answers.adapter, in_use)
        except InputError as error:
            answers.fail(refused(error))
            return True
        except Exception as error:
            log.exception("the adapter %s cannot be loaded", answers.adapter)
            answers.fail(cut_off(error))
            return True
        if name is None:
            return False
        rows = answers.begin(name)
        self._of.update((row, answers) for row in rows)
        group = self._adapters.group(name)
        batch = self._batches.setdefault(group, self._kind(self._adapters))

        def prefill() -> None:
            logits = batch.add(rows)
            self._take(rows, [logits] * len(rows))

        self._guarded(rows, prefill)
        return True

    def _score_next(self) -> None:
        """One alone, so that the answers under way do not wait for long."""
        with self._changed:
            if not self._scorings:
                return
            scoring = self._scorings.popleft()
        if scoring.cancelled:
            return
        try:
            name = self._adapters.load(scoring.adapter, {row.adapter for row in self._of})
            if name is not None:
                scoring.result.put(loss_of(self._adapters, name, scoring.document))
                return
        except InputError as error:
            scoring.result.put(refused(error))
            return
        except Exception as error:
            log.exception("a document cannot be scored with %s", scoring.adapter)
            scoring.result.put(cut_off(error))
            return
        with self._changed:
            self._scorings.append(scoring)  # its adapter finds no room yet

    def _step(self, batch: PaddedBatch | Singles) -> None:
        if not batch.rows:
            return
        rows = [*batch.rows]
        self._take(rows, batch.step())

    def _take(self, rows: Sequence[AnswerRow], logits: Sequence[torch.Tensor] | torch.Tensor) -> None:
        """Gives each row its logits. An error ends the request of that row, and no other."""
        for row, its in zip(rows, logits, strict=True):
            answers = self._of[row]
            if row not in answers.rows:
                continue  # another answer to the same request has failed
            try:
                answers.take(row, its)
            except Exception as error:
                log.exception("an answer of %s failed", row.adapter)
                answers.fail(cut_off(error))
        self._drop([row for row in rows if row not in self._of[row].rows])

    def _guarded(self, rows: list[AnswerRow], work: Callable[[], None]) -> None:
        """Ends these rows, and no others, if the work fails."""
        try:
            work()
        except Exception as error:
            log.exception("answers of %s rows failed", len(rows))
            for answers in {self._of[row] for row in rows if row in self._of}:
                self._drop(answers.rows)
                answers.fail(cut_off(error))

    def _drop(self, rows: list[AnswerRow]) -> None:
        gone = set(rows)
        for batch in self._batches.values():
            batch.drop(gone)
        for row in gone:
            self._of.pop(row, None)


def _too_long(answers: Answers, room: float) -> Refusal:
    message = (
        f"max_tokens: {answers.n} x {answers.longest} tokens, the answers with their prompts, are more than the {room} "
        "that fit into the memory of the model's device; lower max_tokens or n, or shorten the prompt"
    )
    return Refusal(code="context_length_exceeded", message=message, param="max_tokens")
