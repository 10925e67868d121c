"""What a CPU cannot show: the engines and formats on a CUDA device, against fp32 there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contract.base_model import weight_shapes
from contract.events import Done, Evaluation, Metric, Started
from contract.recipe import Recipe
from estimate.activations import Row
from estimate.memory import TOLERANCE, Model, Place, memory
from estimate.plan import read_base
from tests.trainer.conftest import Outcome
from trainer.attention import attend_documents

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
        {"precision": "fp16", "parallel": {"engine": "deepspeed"}, "batch": {"micro_batch": 2, "accumulation": 2}},
        {
            "precision": "bf16",
            "parallel": {"engine": "deepspeed", "zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
        },
        {"precision": "bf16", "parallel": {"engine": "fsdp"}, "gradient_checkpointing": True},
    ],
    ids=["bf16", "fp16", "4 bits", "8 bits", "auto", "accumulated zero-2 in fp16", "zero-3 offloaded", "fsdp"],
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


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"precision": "bf16", "base_bits": 4, "optimizer": {"type": "adamw_8bit"}},
        {"precision": "fp32", "adapter": {"r": 8, "target_modules": ["q_proj", "v_proj"]}},
    ],
    ids=["bf16", "checkpointed", "4 bits", "fp32"],
)
def test_what_is_allocated_is_within_a_quarter_of_its_estimate(
    change: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerFast, run_trainer: RunTrainer
) -> None:
    folder, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=8000)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = [{"role": "user", "content": "?!" * 400}, {"role": "assistant", "content": "!?" * 100}]
    rows.write_text((json.dumps({"messages": said}) + "\n") * 16)
    given = {"model": str(folder), "dataset": str(rows), "batch": {"micro_batch": 4}, "schedule": {"max_steps": 3}}
    outcome = run_trainer(given | change)
    assert outcome.exit_code == 0, outcome.output
    metrics = [event for event in outcome.events if isinstance(event, Metric)]
    measured = max(metric.memory_bytes for metric in metrics)

    recipe = Recipe.model_validate(given | change)
    base = read_base(folder, weight_shapes(folder), recipe, None)
    assert base.architecture is not None
    model = Model(base.shapes, base.config, base.architecture, base.trained)
    row = Row(metrics[0].tokens, 4, metrics[0].supervised_tokens)
    told = memory(recipe, model, row, Place(True, change["precision"], None), 1)
    # The context is no allocation of torch's.
    estimate = told.total - told.overhead
    assert measured / TOLERANCE < estimate < measured * TOLERANCE


def test_flash_attention_over_packed_documents_is_nearly_that_of_fp32() -> None:
    torch.manual_seed(0)
    lengths = [5, 300, 64]
    query, key, value = (torch.randn(1, heads, sum(lengths), 64, device="cuda") for heads in (8, 2, 2))
    exact, _ = attend_documents(torch.nn.Identity(), query, key, value, None, document_lengths=lengths)
    halves = (tensor.bfloat16() for tensor in (query, key, value))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash, _ = attend_documents(torch.nn.Identity(), *halves, None, document_lengths=lengths)
    torch.testing.assert_close(flash.float(), exact, rtol=0.02, atol=0.02)
