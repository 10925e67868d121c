"""The configuration of DeepSpeed."""

from typing import Any

import pytest

from contract.recipe import Parallel
from trainer.engines.zero import deepspeed_config


def config(max_grad_norm: float | None = 1.0, fp16: bool = False, **parallel: Any) -> dict[str, Any]:
    return deepspeed_config(Parallel.model_validate({"engine": "deepspeed", **parallel}), max_grad_norm, fp16)


def test_zero_stage_defaults_to_2() -> None:
    assert [config(zero_stage=stage)["zero_optimization"]["stage"] for stage in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert config()["zero_optimization"] == {"stage": 2}


def test_it_is_told_what_to_offload() -> None:
    both = config(zero_stage=3, offload_optimizer=True, offload_parameters=True)["zero_optimization"]
    assert (both["offload_optimizer"], both["offload_param"]) == ({"device": "cpu"}, {"device": "cpu"})
    assert "offload_param" not in config(offload_optimizer=True)["zero_optimization"]


@pytest.mark.parametrize(("limit", "reported"), [(0.5, 0.5), (None, 0.0)])
def test_deepspeed_is_given_the_clipping(limit: float | None, reported: float) -> None:
    assert config(limit)["gradient_clipping"] == reported
    # It clips without telling the norm there: that is done for it.
    assert config(limit, zero_stage=0)["gradient_clipping"] == 0.0


def test_deepspeed_leaves_loss_and_optimizer_alone() -> None:
    reported = config()
    assert (reported["gradient_accumulation_steps"], reported["zero_force_ds_cpu_optimizer"]) == (1, False)
    assert [config(fp16=wanted)["fp16"]["enabled"] for wanted in (True, False)] == [True, False]
