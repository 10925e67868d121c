"""Packed rows of each kind of model have the same losses on any ranks and with any engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.events import EvaluationEvent, MetricEvent, StartedEvent
from tests.trainer.trainer_process import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(900)]
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"engine": "ddp"},
    "zero-3": {"engine": "deepspeed", "zero_stage": 3},
    "fsdp": {"engine": "fsdp"},
}


KINDS = ("gemma2", "sliding", "qwen3_moe", "qwen3_next")
ONE_BY_ONE = ("qwen3_next", "zero-3")
"""It has a part that goes through each document on its own, whose weights ZeRO-3 would gather each time."""


def losses(outcome: Outcome, packed: bool = True) -> list[float]:
    assert outcome.exit_code == 0, outcome.output
    (started,) = (event for event in outcome.events if isinstance(event, StartedEvent))
    assert started.packed is packed, started.packing
    of_steps = [event.loss for event in outcome.events if isinstance(event, MetricEvent)]
    return of_steps + [event.eval_loss for event in outcome.events if isinstance(event, EvaluationEvent)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_kind_trains_alike_on_two_ranks(
    kind: str,
    engine: str,
    make_model: Callable[[str], Path],
    recipe: dict[str, Any],
    run_trainer: Callable[..., Outcome],
) -> None:
    recipe |= {
        "model": str(make_model(kind)),
        "evaluation": {"fraction": 0.25},
        "batch": {"micro_batch_size": 2, "effective_batch_size": 4},
    }
    alone = losses(run_trainer(recipe, name="alone", timeout=400))
    ranks = run_trainer(recipe | {"parallel": ENGINES[engine]}, ranks=2, name="ranks", timeout=400)
    together = losses(ranks, packed=(kind, engine) != ONE_BY_ONE)
    assert together == pytest.approx(alone, rel=1e-4)
