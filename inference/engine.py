"""What answers requests and scores documents: the model in this process (loop.py), or vLLM (vllm/)."""

from typing import Protocol

from contract.failure import InputError
from contract.inference import Refusal
from inference.answers import Answers
from inference.scoring import Scoring
from trainer.infrastructure import is_out_of_memory

MOST_WAITING = 64
"""Most requests that wait for a place among those that are answered."""

FULL = Refusal(code="overloaded", message="too many requests wait for answers; try again in a few seconds", retry=True)
STOPPING = Refusal(
    code="unavailable", message="the server of this model is stopping; try again in a few seconds", retry=True
)


class AnswerEngine(Protocol):
    room: float
    """Most tokens of all answers under way, with their prompts."""

    def submit(self, answers: Answers) -> Refusal | None:
        """Why it is not taken; None if it is."""

    def score(self, scoring: Scoring) -> None:
        """Its result comes later, a Refusal if it is not taken."""

    def stop(self) -> None:
        """Takes no further request, and ends after those that are under way."""

    def run(self, idle_seconds: float) -> None:
        """Returns once it has been idle for so long, or was stopped."""


def refused(error: InputError) -> Refusal:
    """Why an adapter is not loaded."""
    return Refusal(code=error.failure.code, message=error.failure.message, param="model")


def cut_off(error: Exception) -> Refusal:
    if is_out_of_memory(error):
        what = "the device's memory is too small for these requests"
    else:
        what = str(error) if isinstance(error, FloatingPointError) else "it failed"
    message = f"the answer was cut off: {what}; the server's log says more"
    return Refusal(code="answer_failed", message=message, retry=True)
