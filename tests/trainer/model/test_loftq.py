from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.trainer.adapters import IDS, load, logits, ours, plain_base, save, train
from trainer.model.quantize import keep_trainable, quantization


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        ("qwen2", {"alpha": 4}),
        ("qwen2", {"alpha": 32}),  # The scale that A and B must make up for.
        ("qwen2", {"dora": True, "rslora": True, "rank_pattern": {"q_proj": 8}}),
        ("gpt2 with dropout", {"target_modules": ["c_attn", "c_fc", "c_proj"]}),
    ],
)
def test_loftq_starts_nearer_to_the_base(
    kind: str, adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    whole = logits(plain_base(make_model(kind)))
    adapter = {"r": 32} | adapter
    errors = [
        (ours(load(recipe, make_model(kind), adapter | {"init": init}, base_bits=4)) - whole).norm().item()
        for init in ("default", "loftq")
    ]
    assert errors[1] < 0.75 * errors[0]


def test_dora_starts_from_the_magnitudes_that_it_makes(
    make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    plain, dora = (
        ours(load(recipe, make_model("qwen2"), {"init": "loftq", "dora": dora}, base_bits=4)) for dora in (False, True)
    )
    torch.testing.assert_close(plain, dora, rtol=1e-4, atol=1e-4)


def test_it_reads_a_base_in_several_files(
    make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    plain_base(make_model("qwen2")).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    one, several = (
        ours(load(recipe, folder, {"init": "loftq"}, base_bits=4)) for folder in (make_model("qwen2"), tmp_path)
    )
    torch.testing.assert_close(one, several)


def test_loftq_adapter_is_identical_in_plain_peft(
    make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    module = load(recipe, make_model("qwen2"), {"init": "loftq", "dora": True}, base_bits=4)
    losses = train(module, recipe)
    assert losses[-1] < losses[0]
    base = AutoModelForCausalLM.from_pretrained(
        make_model("qwen2"), dtype=torch.float32, quantization_config=quantization(4, torch.float32)
    )
    keep_trainable(base)
    reloaded = PeftModel.from_pretrained(base, save(module, tmp_path)).eval()
    torch.testing.assert_close(reloaded(input_ids=IDS).logits, ours(module), rtol=1e-4, atol=1e-4)
