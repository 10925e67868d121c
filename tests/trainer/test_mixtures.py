"""A mixture of experts, trained with LoRA on its experts and with its routers' loss, from end to end."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from contract.events import DoneEvent, EvaluationEvent, MetricEvent
from contract.recipe import Recipe
from contract.run_dir import RunDir, latest_state
from tests.trainer.adapters import documents_of
from tests.trainer.architectures import config_of
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, at_once
from trainer.data.examples import load_data


@pytest.fixture(scope="session")
def mixture(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    torch.manual_seed(0)
    config = config_of("qwen3_moe")
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 512
    config.output_router_logits, config.router_aux_loss_coef = True, 0.1
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def with_experts(recipe: dict[str, Any], mixture: Path) -> dict[str, Any]:
    """Six steps."""
    return recipe | {
        "model": str(mixture),
        "adapter": {"r": 2, "experts": True},
        "batch": {"micro_batch_size": 4, "effective_batch_size": 4},
        "optimizer": {"learning_rate": 3e-3},
        "evaluation": {"fraction": 0.25},
    }


def steps(outcome: Outcome) -> list[tuple[float, float | None]]:
    return [(each.loss, each.router_loss) for each in outcome.events if isinstance(each, MetricEvent)]


def losses(outcome: Outcome) -> list[float]:
    """With those of the routers and of the evaluations."""
    evaluations = [each.eval_loss for each in outcome.events if isinstance(each, EvaluationEvent)]
    return [value for step in steps(outcome) for value in step if value is not None] + evaluations


def test_accumulated_and_resumed_mixtures_learn_the_same(
    with_experts: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    whole = train_here(with_experts, tmp_path / "whole", cache)
    expected = steps(whole)
    assert len(expected) == 6
    assert all(router is not None and router > 0 for _, router in expected)
    assert expected[-1][0] < expected[0][0]
    accumulated = with_experts | {"batch": {"micro_batch_size": 1, "effective_batch_size": 4}}
    apart = train_here(accumulated, tmp_path / "apart", cache)
    assert losses(apart) == pytest.approx(losses(whole), rel=1e-5)

    first = train_here(with_experts, tmp_path / "first", cache, stop_in=4)
    done = first.events[-1]
    assert isinstance(done, DoneEvent)
    assert 0 < done.step < 6
    state, _ = latest_state([RunDir(first.folder)])
    rest = train_here(with_experts, tmp_path / "rest", cache, resume=state)
    assert steps(rest) == expected[done.step :]


def test_adapter_of_experts_has_the_reported_loss_in_plain_peft(
    with_experts: dict[str, Any], mixture: Path, tmp_path: Path, cache: Path
) -> None:
    outcome = train_here(with_experts, tmp_path / "run", cache)
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    base = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, outcome.folder / "adapter").eval()
    held_out = load_data(Recipe.model_validate(with_experts), cache).evaluation
    total = 0.0
    for document in documents_of(held_out):
        ids, learned = torch.tensor(document.input_ids), torch.tensor(document.supervised)
        with torch.no_grad():
            logits = model(input_ids=ids[None, :-1]).logits[0]
        picked = learned[1:]
        total += torch.nn.functional.cross_entropy(logits[picked], ids[1:][picked], reduction="sum").item()
    assert done.eval_loss == pytest.approx(total / held_out.targets, rel=1e-5)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_ranks_learn_the_experts_of_one(
    engine: str, with_experts: dict[str, Any], run_trainer: Callable[..., Outcome], tmp_path: Path, cache: Path
) -> None:
    divided = with_experts | {"resources": {"gpus": 2}, "parallel": {"engine": engine}}
    one, two = at_once(
        functools.partial(train_here, with_experts, tmp_path / "one", cache),
        functools.partial(run_trainer, divided, ranks=2, name="two"),
    )
    assert two.exit_code == 0, two.output
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


@pytest.mark.exhaustive
def test_divided_experts_are_refused_by_name(with_experts: dict[str, Any], run_trainer: Callable[..., Outcome]) -> None:
    named = {"r": 2, "target_modules": ["experts.down_proj"]}
    outcome = run_trainer(with_experts | {"adapter": named, "parallel": {"engine": "deepspeed", "zero_stage": 3}})
    assert outcome.exit_code == 1
    assert json.loads((outcome.folder / "error.json").read_text())["param"] == "adapter.experts"
