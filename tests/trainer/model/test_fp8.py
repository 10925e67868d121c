"""A base in FP8. A CPU computes the products with the same call as a GPU, so its figures are a GPU's up to sums in
another order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lora import Linear
from safetensors.torch import load_file

from contract.failure import FailureCode, InputError
from tests.trainer.adapters import load, logits, loss_and_gradients, ours, plain_base, save, some_rows, train
from tests.trainer.in_process_trainer import train_here
from trainer.model import fp8
from trainer.model.fp8 import Fp8Linear
from trainer.model.fused_lora import FusedLinear

LARGEST_OF_E4M3 = 448.0


def cast(matrix: torch.Tensor) -> torch.Tensor:
    """The reference: rows scaled, rounded to e4m3 and back."""
    scales = matrix.float().abs().amax(dim=-1, keepdim=True) / LARGEST_OF_E4M3
    scales = torch.where(scales == 0, 1, scales)
    return (matrix.float() / scales).to(torch.float8_e4m3fn).float() * scales


def in_fp8(linear: torch.nn.Linear) -> Fp8Linear:
    linear.requires_grad_(False)
    linear.__class__ = Fp8Linear
    linear.convert()
    return linear


def assert_near(found: torch.Tensor, left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | float) -> None:
    """Rounding goes by the largest terms of a sum: where they cancel, the sum itself may be much smaller."""
    expected, terms = left @ right + bias, left.abs() @ right.abs() + abs(bias)
    rounding = torch.finfo(found.dtype).eps * expected.abs() + 1e-6 * terms
    assert ((found.float() - expected).abs() <= rounding).all()


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 40), *[st.sampled_from([16, 48, 64, 160])] * 2),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
    seed=st.integers(0, 2**16),
)
def test_products_are_those_of_the_reference_cast(
    shape: tuple[int, int, int], biased: bool, dtype: torch.dtype, spread: float, seed: int
) -> None:
    """Rows of any size, of zeros among them, and none at all."""
    torch.manual_seed(seed)
    rows, *sizes = shape
    plain = torch.nn.Linear(*sizes, bias=biased, dtype=dtype)
    plain.weight.data *= torch.exp(spread * torch.randn(sizes[1], 1)).to(dtype)
    plain.weight.data[0] = 0
    weight, bias = plain.weight.detach().clone(), plain.bias
    x = (torch.exp(spread * torch.randn(rows, 1)) * torch.randn(rows, sizes[0])).to(dtype).requires_grad_()
    y = in_fp8(plain)(x)
    of_y = torch.randn_like(y)
    y.backward(of_y)
    assert_near(y, cast(x), cast(weight).T, 0 if bias is None else bias.float())
    assert x.grad is not None
    assert_near(x.grad, cast(of_y), cast(weight.T).T, 0)
    assert (y.dtype, x.grad.dtype) == (dtype, dtype)


def test_rounding_is_within_a_sixteenth() -> None:
    """Half a step of three bits, but for what is tiny beside its row's largest value."""
    torch.manual_seed(0)
    matrix = torch.randn(64, 256) * torch.exp(8 * torch.randn(64, 1))
    error, large = (cast(matrix) - matrix).abs(), matrix.abs() > matrix.abs().amax(dim=1, keepdim=True) / 2**14
    assert (error <= matrix.abs() / 16)[large].all()
    scaled = fp8.cast_rows(matrix)
    assert torch.equal(scaled.values.float() * scaled.scales, cast(matrix))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_fused_lora_in_fp8_has_the_gradients_of_peft(
    kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load(recipe, make_model(kind), {"rslora": True}, precision="fp8").eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    fused, gradients = loss_and_gradients(module, some_rows(recipe))
    for each in module.modules():
        if isinstance(each, FusedLinear):
            each.__class__ = Linear
    expected, of_peft = loss_and_gradients(module, some_rows(recipe))
    assert fused == pytest.approx(expected, rel=1e-4)
    assert gradients.keys() == of_peft.keys()
    for name, gradient in gradients.items():
        # A last bit may round another value of the next layer's input or gradient to its neighbour in e4m3.
        assert (gradient - of_peft[name]).norm() <= 0.05 * of_peft[name].norm(), name


def test_only_layers_are_in_fp8(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    for kind in ("llama", "qwen2"):  # The head is the embeddings; the head is by itself.
        module = load(recipe, make_model(kind), {}, torch.bfloat16, precision="fp8")
        base = module.model.get_base_model()
        in_layers = [each for each in base.modules() if isinstance(each, Fp8Linear)]
        assert len(in_layers) == 2 * 7
        assert {each.weight.dtype for each in in_layers} == {torch.float8_e4m3fn}
        head = base.get_output_embeddings()
        assert (type(head), head.weight.dtype) == (torch.nn.Linear, torch.bfloat16)
        assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
        assert all(isinstance(each.base_layer, Fp8Linear) for each in module.modules() if isinstance(each, FusedLinear))


def test_start_of_the_adapter_does_not_depend_on_fp8(model: Path, recipe: dict[str, Any]) -> None:
    """A would be rounded if it were made in the base's format."""
    bf16, in_fp8 = (load(recipe, model, {}, torch.bfloat16, precision=given) for given in ("bf16", "fp8"))
    for (name, parameter), other in zip(bf16.named_parameters(), in_fp8.parameters(), strict=True):
        if parameter.requires_grad:
            assert torch.equal(parameter, other), name


@pytest.mark.parametrize(
    "adapter",
    [{}, {"dropout": 0.1}, pytest.param({"init": "pissa"}, marks=pytest.mark.exhaustive)],
    ids=["fused", "dropout", "pissa"],
)
def test_losses_in_fp8_are_within_two_percent(
    adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    losses = [
        train(load(recipe, make_model("qwen2"), adapter, torch.bfloat16, precision=given), recipe, steps=8)
        for given in ("bf16", "fp8")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.005)
    assert losses[1] != losses[0]
    assert losses[1][-1] < losses[1][0]


def test_checkpointed_gradients_in_fp8_are_the_same(model: Path, recipe: dict[str, Any]) -> None:
    whole, checkpointed = (
        loss_and_gradients(
            load(recipe, model, {}, precision="fp8", gradient_checkpointing=wanted).train(), some_rows(recipe)
        )
        for wanted in (False, True)
    )
    assert whole[0] == checkpointed[0]
    for name, gradient in whole[1].items():
        torch.testing.assert_close(gradient, checkpointed[1][name])


def test_fp8_adapter_loads_in_plain_peft(
    make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    """On the original base, which FP8 has left as it was."""
    module = load(recipe, make_model("qwen2"), {}, precision="fp8")
    train(module, recipe)
    saved = load_file(save(module, tmp_path) / "adapter_model.safetensors")
    assert len(saved) == sum(p.requires_grad for p in module.parameters())
    reloaded = PeftModel.from_pretrained(plain_base(make_model("qwen2")), tmp_path).eval()
    in_fp8, whole = ours(module), logits(reloaded)
    assert 0 < (in_fp8 - whole).norm() < 0.1 * whole.norm()
    exact = load(recipe, make_model("qwen2"), {"start_from": str(tmp_path)})
    torch.testing.assert_close(ours(exact), whole, rtol=1e-4, atol=1e-4)


def test_resumed_fp8_run_equals_the_uninterrupted_one(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    given = recipe | {"precision": "fp8", "batch": {"micro_batch_size": 1, "effective_batch_size": 4}}
    whole = train_here(given, tmp_path / "whole", cache)
    train_here(given, tmp_path / "first", cache, stop_in=6)
    state = max((tmp_path / "first" / "states").iterdir())
    rest = train_here(given, tmp_path / "rest", cache, resume=state)
    expected = {event.step: event.loss for event in whole.events if event.type == "metric"}
    losses = {event.step: event.loss for event in rest.events if event.type == "metric"}
    assert 1 <= len(losses) < len(expected)
    assert losses == {step: expected[step] for step in losses}
    (started,) = (event for event in rest.events if event.type == "started")
    assert started.precision == "fp8"


def test_base_without_such_modules_is_refused(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    with pytest.raises(InputError, match='no linear module of this gpt2 can multiply in it; use "bf16"') as caught:
        load(recipe, make_model("gpt2 with dropout"), {}, precision="fp8")
    assert (caught.value.failure.code, caught.value.failure.param) == (FailureCode.MODEL_UNSUPPORTED, "precision")


def test_earlier_dora_is_refused_in_fp8(model: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    save(load(recipe, model, {"dora": True}), tmp_path)
    with pytest.raises(InputError, match="DoRA computes with whole weights") as caught:
        load(recipe, model, {"start_from": str(tmp_path)}, precision="fp8")
    assert caught.value.failure.param == "adapter.start_from"
