"""Whole runs of each method, with the tiny model."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.events import DoneEvent, EvaluationEvent, LogEvent, MetricEvent, PhaseEvent, StartedEvent
from contract.failure import InputError
from contract.recipe import Recipe
from contract.run_dir import RunDir, latest_state
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, at_once
from trainer import reference
from trainer.data.examples import load_data
from trainer.data.items import Rating
from trainer.engines.ddp import Ddp

RunTrainer = Callable[..., Outcome]

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"What is {n} plus {n}? Take your time, and say how you know."}],
        "chosen": [{"role": "assistant", "content": f"{2 * n}."}],
        "rejected": [{"role": "assistant", "content": f"I do not know, but {n} is nice."}],
    }
    for n in range(12)
]
RATED = [
    {"prompt": pair["prompt"], "completion": pair[answer], "label": answer == "chosen"}
    for pair in PAIRS
    for answer in ("chosen", "rejected")
]


@pytest.fixture
def pairs(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe of DPO on pairs."""
    return recipe | {
        "dataset": write(tmp_path / "pairs.jsonl", PAIRS),
        "method": "dpo",
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"epochs": 4, "type": "constant", "warmup_steps": 0},
        "evaluation": {"fraction": 0.25},
    }


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def of_kind(outcome: Outcome, kind: Any) -> list[Any]:
    return [event for event in outcome.events if isinstance(event, kind)]


def test_dpo_learns_to_prefer_the_better_answers(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    outcome = train_here(pairs, tmp_path / "run", cache)
    steps, evaluations = of_kind(outcome, MetricEvent), of_kind(outcome, EvaluationEvent)
    assert steps[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert steps[0].reward_margin == pytest.approx(0, abs=1e-5)
    assert evaluations[0].eval_loss == pytest.approx(math.log(2), abs=1e-6)
    assert evaluations[-1].reward_accuracy == 1
    assert evaluations[-1].reward_margin == pytest.approx(
        evaluations[-1].chosen_reward - evaluations[-1].rejected_reward
    )
    assert evaluations[-1].reward_margin > 0.1
    assert evaluations[-1].chosen_tokens < evaluations[-1].rejected_tokens
    assert evaluations[-1].token_accuracy is None
    assert [event.name for event in of_kind(outcome, PhaseEvent)].count("reference") == 1


@pytest.mark.parametrize("method", ["orpo", "simpo", {"type": "dpo", "loss": "ipo"}, {"type": "dpo", "sft_weight": 1}])
def test_other_methods_of_pairs_learn_them_too(method: Any, pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    outcome = train_here(pairs | {"method": method}, tmp_path / "run", cache)
    first, *_, last = of_kind(outcome, EvaluationEvent)
    assert last.eval_loss < first.eval_loss
    assert last.reward_margin > first.reward_margin


def test_kto_learns_from_ratings(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    rated = pairs | {"method": "kto", "dataset": write(tmp_path / "rated.jsonl", RATED)}
    outcome = train_here(rated, tmp_path / "run", cache)
    steps = of_kind(outcome, MetricEvent)
    assert steps[0].loss == pytest.approx(0.5, abs=1e-6)
    first, *_, last = of_kind(outcome, EvaluationEvent)
    assert last.reward_margin > first.reward_margin + 0.1
    assert last.chosen_tokens < last.rejected_tokens


def test_adapter_that_is_trained_further_is_its_own_reference(
    pairs: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    earlier = train_here(pairs | {"method": "orpo"}, tmp_path / "earlier", cache).folder / "adapter"
    further = train_here(pairs | {"adapter": {"start_from": str(earlier)}}, tmp_path / "further", cache)
    fresh = train_here(pairs, tmp_path / "fresh", cache)
    losses = [of_kind(outcome, MetricEvent)[0].loss for outcome in (further, fresh)]
    assert losses == pytest.approx([math.log(2)] * 2, abs=1e-6)
    margins = [of_kind(outcome, EvaluationEvent)[0].reward_margin for outcome in (further, fresh)]
    assert margins == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("method", ["dpo", pytest.param("kto", marks=pytest.mark.exhaustive)])
def test_interrupted_run_of_a_method_equals_the_uninterrupted_one(
    method: str, pairs: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    """Without what the cache has: another machine goes on."""
    rows = write(tmp_path / "rated.jsonl", RATED) if method == "kto" else pairs["dataset"]
    changed = pairs | {"method": method, "dataset": rows, "adapter": {"r": 4, "alpha": 8, "dropout": 0.3}}
    changed["batch"] = {"micro_batch_size": 1, "effective_batch_size": 4}
    whole = train_here(changed, tmp_path / "whole", cache)
    first = train_here(changed, tmp_path / "first", cache, stop_in=15)
    state, _ = latest_state([RunDir(first.folder)])
    rest = train_here(changed, tmp_path / "rest", tmp_path / "other cache", resume=state)
    assert curve(rest) == curve(whole)[-len(curve(rest)) :]
    assert len(curve(first)) + len(curve(rest)) == len(curve(whole))
    file = "adapter/adapter_model.safetensors"
    assert (rest.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def curve(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [(event.step, event.loss, event.grad_norm, event.reward_margin) for event in of_kind(outcome, MetricEvent)]


def test_stopped_reference_pass_goes_on_where_it_was(
    pairs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(reference, "_GROUPS_OF_PART", 2)
    whole = train_here(pairs, tmp_path / "whole", tmp_path / "cache")
    measured, stops = [], [True]
    plain = Ddp.sums

    def counted(engine: Ddp, batch: Any, log_probabilities: bool = False) -> torch.Tensor:
        measured.append(log_probabilities)
        if stops and measured.count(True) == 5:
            raise KeyboardInterrupt
        return plain(engine, batch, log_probabilities)

    monkeypatch.setattr(Ddp, "sums", counted)
    with pytest.raises(KeyboardInterrupt):
        train_here(pairs, tmp_path / "first", tmp_path / "fresh")
    stops.clear()
    measured.clear()
    rest = train_here(pairs, tmp_path / "rest", tmp_path / "fresh")
    assert measured.count(True) == len(PAIRS) - 4
    assert curve(rest) == curve(whole)


def test_jobs_on_the_same_data_share_their_reference(pairs: dict[str, Any], tmp_path: Path) -> None:
    seconds = [
        statistics.mean(event.seconds for event in of_kind(outcome, PhaseEvent) if event.name == "reference")
        for outcome in (
            train_here(pairs | {"method": {"type": "dpo", "beta": beta}}, tmp_path / str(beta), tmp_path / "cache")
            for beta in (0.1, 0.3)
        )
    ]
    assert len(seconds) == 2
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 1


def test_pair_without_room_for_both_answers_is_left_out(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    long = {**PAIRS[0], "prompt": [{"role": "user", "content": "word " * 200}]}
    rows = write(tmp_path / "long.jsonl", [*PAIRS[:2], long, *PAIRS[2:6]])
    outcome = train_here(
        pairs | {"dataset": rows, "evaluation": {}, "batch": {"max_length": 128}}, tmp_path / "run", cache
    )
    (started,) = of_kind(outcome, StartedEvent)
    assert (started.train_examples, started.dropped_examples) == (6, 1)
    warnings = [event.message for event in of_kind(outcome, LogEvent) if event.level == "warning"]
    assert any("not both answers are within" in each and "the first are the examples 3" in each for each in warnings)


def test_pair_that_differs_behind_the_cut_is_left_out(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    alike = {
        "prompt": PAIRS[0]["prompt"],
        "chosen": [{"role": "assistant", "content": "word " * 200 + "yes"}],
        "rejected": [{"role": "assistant", "content": "word " * 200 + "no"}],
    }
    rows = write(tmp_path / "alike.jsonl", [*PAIRS[:2], alike, *PAIRS[2:6]])
    changed = pairs | {"dataset": rows, "evaluation": {}, "batch": {"max_length": 128}}
    (started,) = of_kind(train_here(changed, tmp_path / "run", cache), StartedEvent)
    assert (started.train_examples, started.dropped_examples) == (6, 1)


def test_other_answer_belongs_to_another_prompt(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    """The good and the bad answer to a question are next to each other in the file."""
    rated = pairs | {"method": "kto", "dataset": write(tmp_path / "rated.jsonl", RATED), "evaluation": {}}
    ratings = load_data(Recipe.model_validate(rated), cache).train
    own = {tuple(rating.documents[0].input_ids): rating.documents[0] for rating in ratings}
    for rating in ratings:
        assert isinstance(rating, Rating)
        prompt = rating.answer.input_ids[: rating.answer.supervised.index(True)]
        assert rating.other.input_ids[: len(prompt)] == prompt
        assert tuple(rating.other.input_ids) not in own


def test_lone_held_out_rating_is_refused(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    rated = pairs | {"method": "kto", "dataset": write(tmp_path / "rated.jsonl", RATED[:6])}
    with pytest.raises(InputError, match="leaves one rated answer"):
        load_data(Recipe.model_validate(rated | {"evaluation": {"fraction": 0.2}}), cache)


def test_stop_request_ends_the_pass_before_training(
    pairs: dict[str, Any], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(reference, "_TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(reference, "stop_requested", lambda *_: next(answers))
    (done,) = of_kind(train_here(pairs, tmp_path / "run", tmp_path / "cache"), DoneEvent)
    assert (done.step, done.completed) == (0, False)


@pytest.mark.parametrize("change", [{"seed": 7}, {"batch": {"micro_batch_size": 3}}, {"batch": {"max_length": 100}}])
def test_run_takes_no_reference_of_other_examples(
    change: dict[str, Any], pairs: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    batch = {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 128}
    pairs |= {"dataset": write(tmp_path / "many.jsonl", 20 * PAIRS), "batch": batch, "schedule": {"max_steps": 1}}
    train_here(pairs, tmp_path / "before", cache)
    changed = {**pairs, **change, "batch": batch | change.get("batch", {})}
    (step,) = of_kind(train_here(changed, tmp_path / "after", cache), MetricEvent)
    assert step.loss == pytest.approx(math.log(2), abs=1e-6)


def test_better_accuracy_wins_over_a_lower_loss(pairs: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    outcome = train_here(pairs, tmp_path / "run", cache)
    evaluations = of_kind(outcome, EvaluationEvent)
    best = max(evaluations, key=lambda event: (event.reward_accuracy, event.reward_margin))
    (done,) = of_kind(outcome, DoneEvent)
    assert done.best_step == best.step
    assert [event.step for event in evaluations if event.best][-1] == best.step


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize(
    "parallel",
    [{}, {"engine": "deepspeed"}, {"engine": "deepspeed", "zero_stage": 3}, {"engine": "fsdp"}],
    ids=["ddp", "zero-2", "zero-3", "fsdp"],
)
def test_ranks_of_a_method_equal_one(
    parallel: dict[str, Any],
    method: str,
    pairs: dict[str, Any],
    run_trainer: RunTrainer,
    tmp_path: Path,
    cache: Path,
) -> None:
    rows = write(tmp_path / "rated.jsonl", RATED) if method == "kto" else pairs["dataset"]
    changed = pairs | {"method": method, "dataset": rows, "batch": {"micro_batch_size": 1, "effective_batch_size": 5}}
    alone, both = at_once(
        lambda: train_here(changed, tmp_path / "alone", cache),
        lambda: run_trainer(changed | {"parallel": parallel}, ranks=2, name="both", timeout=300),
    )
    assert both.exit_code == 0, both.output
    for ours, expected in zip(curve(both), curve(alone), strict=True):
        assert ours == pytest.approx(expected, rel=1e-3, abs=2e-5)
