from typing import Any

import pytest

from benchmarks.soak.ledger import set_back

Recorded = tuple[str, float, dict[str, Any]]


def started(resumed_step: int) -> Recorded:
    return ("started", 0.0, {"resumed_step": resumed_step})


def saved(step: int, final: bool = False) -> Recorded:
    return ("checkpoint", 0.0, {"step": step, "final": final})


DAMAGED: Recorded = (
    "log",
    0.0,
    {"message": "the training checkpoint attempt-1/step-000004 is damaged; the run resumes from an earlier one"},
)


@pytest.mark.parametrize(
    "reported",
    [
        [started(0), saved(2), saved(4), started(4)],
        [started(0), saved(2), started(4)],
        [started(0), saved(2), saved(4), DAMAGED, started(2), saved(4), started(4)],
        [started(0), saved(2), saved(3, final=True), started(2)],
    ],
    ids=["from the last one", "from one that nobody recorded", "the last one was torn", "the end has no state"],
)
def test_resumed_attempts_are_not_setbacks(reported: list[Recorded]) -> None:
    assert list(set_back(reported)) == []


@pytest.mark.parametrize(
    "reported",
    [
        [started(0), saved(2), started(0)],
        [started(0), saved(2), saved(4), started(2)],
        [started(0), saved(2), started(2), saved(4), started(0)],
    ],
    ids=["anew", "from the one before", "the third one anew"],
)
def test_attempt_before_the_saved_step_is_reported(reported: list[Recorded]) -> None:
    assert len(list(set_back(reported))) == 1
