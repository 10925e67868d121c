"""What a CPU cannot show: the engines and formats on a CUDA device, against fp32 there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from contract.events import Done, Evaluation, Metric, Started
from tests.trainer.conftest import Outcome

RunTrainer = Callable[..., Outcome]
pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "bf16", "base_bits": 4, "optimizer": {"type": "adamw_8bit", "learning_rate": 1e-2}},
        {"precision": "bf16", "base_bits": 8},
        {"precision": "bf16", "batch": {"micro_batch": "auto", "effective": 4}},
        {"precision": "fp16", "parallel": {"engine": "deepspeed"}},
        {"precision": "bf16", "parallel": {"engine": "deepspeed", "zero_stage": 3, "offload_optimizer": True}},
        {"precision": "bf16", "parallel": {"engine": "fsdp"}, "gradient_checkpointing": True},
    ],
    ids=["bf16", "fp16", "4 bits", "8 bits", "auto", "zero-2 in fp16", "zero-3 offloaded", "fsdp"],
)
def test_a_gpu_trains_as_in_fp32(change: dict[str, Any], recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    recipe |= {"evaluation": {"share": 0.25, "samples": 1, "sample_tokens": 4}}
    exact = run_trainer(recipe, name="exact")
    assert exact.exit_code == 0, exact.output
    outcome = run_trainer(recipe | change, name="changed")
    assert outcome.exit_code == 0, outcome.output
    (started,) = (event for event in outcome.events if isinstance(event, Started))
    assert (started.device, started.precision) == (torch.cuda.get_device_name(), change["precision"])
    losses, expected = ([e.loss for e in run.events if isinstance(e, Metric)] for run in (outcome, exact))
    assert losses == pytest.approx(expected, rel=0.05)
    evaluations = [event.eval_loss for event in outcome.events if isinstance(event, Evaluation)]
    assert evaluations[-1] < evaluations[0]
    done = outcome.events[-1]
    assert isinstance(done, Done)
    assert done.completed


def test_devices_of_one_machine_train_as_one_does(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    """By NCCL, on as many as there are."""
    recipe["batch"] = {"micro_batch": 1, "effective": 4}
    one = run_trainer(recipe, name="one")
    for name, parallel in (("ddp", {}), ("zero-2", {"engine": "deepspeed"}), ("fsdp", {"engine": "fsdp"})):
        all_of_them = run_trainer(recipe | {"parallel": parallel}, ranks=torch.cuda.device_count(), name=name)
        assert all_of_them.exit_code == 0, all_of_them.output
        losses, expected = ([e.loss for e in run.events if isinstance(e, Metric)] for run in (all_of_them, one))
        assert losses == pytest.approx(expected, rel=1e-3), name
