from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear

from tests.trainer.adapters import load, loss, loss_and_gradients, some_rows
from trainer.model.fused_lora import FusedLinear
from trainer.model.trained_model import TrainedModel


def as_peft_has_it(module: TrainedModel) -> int:
    """The number of modules that are fused no more."""
    fused = [each for each in module.modules() if isinstance(each, FusedLinear)]
    for each in fused:
        each.__class__ = Linear
    return len(fused)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2 with dropout"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=["fp32", "bf16"])
def test_fused_lora_has_the_gradients_of_peft(
    kind: str, dtype: torch.dtype, near: float, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load(recipe, make_model(kind), {"rslora": True}, dtype).eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    ours, gradients = loss_and_gradients(module, some_rows(recipe))
    assert as_peft_has_it(module) >= 8
    expected, of_peft = loss_and_gradients(module, some_rows(recipe))
    assert ours == pytest.approx(expected, rel=near / 10)
    assert gradients.keys() == of_peft.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert (gradient - of_peft[name]).norm() <= near * of_peft[name].norm(), name


@pytest.mark.parametrize("adapter", [{"dropout": 0.1}, {"dora": True}], ids=["dropout", "DoRA"])
def test_other_adapters_are_left_to_peft(adapter: dict[str, Any], model: Path, recipe: dict[str, Any]) -> None:
    assert as_peft_has_it(load(recipe, model, adapter)) == 0


def test_modules_with_trained_biases_are_unfused(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module = load(recipe, make_model("qwen2"), {"bias": "all"})
    assert as_peft_has_it(module) == 2 * len(("o_proj", "gate_proj", "up_proj", "down_proj"))


def test_module_called_alone_computes_for_itself(model: Path, recipe: dict[str, Any]) -> None:
    """As no layer does: outputs that another call has left waiting are not taken for those of this one."""
    layer = load(recipe, model, {}).model.get_base_model().model.layers[0].self_attn
    once, other = torch.randn(1, 5, 64), torch.randn(1, 5, 64)
    expected = layer.v_proj(once)
    assert torch.equal(layer.q_proj(once), layer.q_proj(once))
    layer.k_proj(other)
    torch.testing.assert_close(layer.v_proj(once), expected)


def test_adapter_that_is_off_adds_nothing(model: Path, recipe: dict[str, Any]) -> None:
    module = load(recipe, model, {})
    before, _ = loss_and_gradients(module, some_rows(recipe))
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    with module.model.disable_adapter(), torch.no_grad():
        assert loss(module, some_rows(recipe)).item() == pytest.approx(before, rel=1e-6)


def test_fused_lora_keeps_less_for_autograd(model: Path, recipe: dict[str, Any]) -> None:
    module = load(recipe, model, {}, torch.bfloat16)

    def kept() -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            total = loss(module, some_rows(recipe))
        assert total.requires_grad
        return sum(sizes.values())

    ours = kept()
    as_peft_has_it(module)
    assert ours < kept()
