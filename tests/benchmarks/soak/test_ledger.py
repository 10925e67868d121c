from typing import Any

import pytest

from benchmarks.soak.ledger import set_back

Told = tuple[str, float, dict[str, Any]]


def started(resumed_step: int) -> Told:
    return ("started", 0.0, {"resumed_step": resumed_step})


def saved(step: int, final: bool = False) -> Told:
    return ("checkpoint", 0.0, {"step": step, "final": final})


DAMAGED: Told = (
    "log",
    0.0,
    {"message": "the training checkpoint attempt-1/step-000004 is damaged; the run resumes from an earlier one"},
)


@pytest.mark.parametrize(
    "told",
    [
        [started(0), saved(2), saved(4), started(4)],
        [started(0), saved(2), started(4)],
        [started(0), saved(2), saved(4), DAMAGED, started(2), saved(4), started(4)],
        [started(0), saved(2), saved(3, final=True), started(2)],
    ],
    ids=["from the last one", "from one that nobody told of", "the last one was torn", "the end has no state"],
)
def test_resumed_attempts_are_not_setbacks(told: list[Told]) -> None:
    assert list(set_back(told)) == []


@pytest.mark.parametrize(
    "told",
    [
        [started(0), saved(2), started(0)],
        [started(0), saved(2), saved(4), started(2)],
        [started(0), saved(2), started(2), saved(4), started(0)],
    ],
    ids=["anew", "from the one before", "the third one anew"],
)
def test_attempt_before_the_saved_step_is_reported(told: list[Told]) -> None:
    assert len(list(set_back(told))) == 1
