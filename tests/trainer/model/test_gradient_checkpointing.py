"""Activations that are made anew in the backward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from contract.failure import FailureCode, InputError
from tests.trainer.adapters import load, loss, some_rows
from trainer.model.trained_model import TrainedModel


def gradients(module: TrainedModel, recipe: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    batch = some_rows(recipe)
    torch.manual_seed(3)
    mean = loss(module.train(), batch)
    mean.backward()
    return mean.item(), {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("kind", "adapter", "bits"),
    [
        ("llama", {"modules_to_save": ["embed_tokens"]}, None),
        ("llama with dropout", {"dropout": 0.3}, None),
        ("gpt2 with dropout", {"dropout": 0.3, "dora": True}, None),
        ("sliding", {}, None),
        ("bloom", {}, None),  # Not packed.
        ("qwen2", {"target_modules": r".*layers\.1\..*_proj"}, 4),
        ("qwen2", {}, 8),
    ],
)
def test_checkpointed_gradients_are_equal(
    kind: str, adapter: dict[str, Any], bits: int | None, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    kept, anew = (
        gradients(load(recipe, make_model(kind), adapter, base_bits=bits, gradient_checkpointing=wanted), recipe)
        for wanted in (False, True)
    )
    assert anew[0] == pytest.approx(kept[0], rel=1e-6)
    torch.testing.assert_close(anew[1], kept[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["llama", "sliding", "gpt2 with dropout"])
def test_layers_recompute_in_training_only(
    kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    counts = []
    for wanted in (False, True):
        module = load(recipe, make_model(kind), {}, gradient_checkpointing=wanted)
        projection = next(child for name, child in module.named_modules() if name.endswith(("q_proj", "c_attn")))
        calls: list[bool] = []
        projection.register_forward_hook(lambda *_, calls=calls: calls.append(True))
        with torch.no_grad():
            loss(module.eval(), some_rows(recipe))
        evaluation = len(calls)
        gradients(module, recipe)
        counts.append((evaluation, len(calls) - evaluation))
    assert counts[0][0] == counts[0][1] == counts[1][0]
    assert counts[1][1] == 2 * counts[0][1]


def test_architecture_that_cannot_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    config = OpenAIGPTConfig(vocab_size=96, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    OpenAIGPTLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="leave it out") as caught:
        load(recipe, tmp_path, {}, gradient_checkpointing=True)
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert caught.value.failure.param == "gradient_checkpointing"
