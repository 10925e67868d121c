"""Experts' grouped products give the losses and gradients of PEFT's own forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from contract.recipe import Recipe
from dataset.document import Document
from tests.trainer.adapters import loss_and_gradients
from tests.trainer.architectures import MIXTURES, VOCABULARY, save_architecture
from trainer.data.packing import PackedBatch, pack
from trainer.model.base_model import checkpoint_activations, load_model
from trainer.model.expert_lora import FusedExperts, fuse_experts
from trainer.model.trained_model import TrainedModel

PLAIN = {"gpt_oss", "mixtral", "nemotron_h", "qwen2_moe"}
UNFUSED = {"jetmoe", "llama4", "llama4_text"}
KINDS = [pytest.param(kind, marks=() if kind in PLAIN else pytest.mark.exhaustive) for kind in MIXTURES]


def load(kind: str, folder: Path, dtype: torch.dtype = torch.float32, **adapter: Any) -> TrainedModel:
    """With an adapter that is not zero."""
    save_architecture(kind, folder)
    recipe = {"model": str(folder), "dataset": "none", "adapter": {"r": 3, "experts": True} | adapter, "seed": 1}
    module = load_model(Recipe.model_validate(recipe), dtype, torch.device("cpu")).eval()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return module


def documents(*lengths: int) -> PackedBatch:
    torch.manual_seed(2)
    rows = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in lengths]
    return pack([Document(row, [place >= 3 for place in range(len(row))]) for row in rows])


def as_peft_has_it(module: TrainedModel) -> int:
    """The number of modules of experts that are fused no more."""
    fused = [each for each in module.modules() if isinstance(each, FusedExperts)]
    for each in fused:
        each.__class__ = ParamWrapper
    return len(fused)


@pytest.mark.parametrize("kind", KINDS)
def test_grouped_products_have_the_gradients_of_peft(kind: str, tmp_path: Path) -> None:
    module, batch = load(kind, tmp_path, rslora=True), documents(20, 9)
    ours, gradients = loss_and_gradients(module, batch)
    assert (as_peft_has_it(module) > 0) == (kind not in UNFUSED)
    expected, of_peft = loss_and_gradients(module, batch)
    assert ours == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == of_peft.keys()
    # A gated delta net's gates have gradients that nearly cancel; their rounding is that of the larger ones.
    largest = max(gradient.norm() for gradient in of_peft.values())
    for name, gradient in gradients.items():
        assert (gradient - of_peft[name]).norm() <= 1e-5 * max(of_peft[name].norm(), largest / 10), name


def test_experts_in_bf16_learn_in_fp32(tmp_path: Path) -> None:
    module, batch = load("qwen3_moe", tmp_path, torch.bfloat16), documents(40)
    ours, gradients = loss_and_gradients(module, batch)
    assert as_peft_has_it(module) == 2
    expected, of_peft = loss_and_gradients(module, batch)
    assert ours == pytest.approx(expected, rel=5e-3)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        assert (gradient - of_peft[name]).norm() <= 0.1 * of_peft[name].norm(), name


def test_one_projection_of_experts_is_adapted_alone(tmp_path: Path) -> None:
    module, batch = load("qwen3_moe", tmp_path, target_modules=["experts.down_proj"], experts="auto"), documents(20)
    ours, gradients = loss_and_gradients(module, batch)
    assert len(gradients) == 2 * 2
    assert as_peft_has_it(module) == 2
    expected, _ = loss_and_gradients(module, batch)
    assert ours == pytest.approx(expected, rel=1e-6)


def test_experts_whose_adapter_is_off_add_nothing(tmp_path: Path) -> None:
    module, batch = load("gpt_oss", tmp_path), documents(20)
    with torch.no_grad(), module.model.disable_adapter():
        without = module(batch)[0].item()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    assert module(batch)[0].item() == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize(("kind", "router"), [("qwen3_moe", "gate"), ("gpt_oss", "router")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_requested_router_is_trained_whole(kind: str, router: str, dtype: torch.dtype, tmp_path: Path) -> None:
    module = load(kind, tmp_path, dtype, modules_to_save=[router])
    _, gradients = loss_and_gradients(module, documents(20))
    of_routers = [gradient for name, gradient in gradients.items() if f".{router}.modules_to_save." in name]
    assert len(of_routers) >= 2
    assert all(gradient.any() and gradient.dtype == torch.float32 for gradient in of_routers)


def test_recomputed_activations_have_the_same_gradients(tmp_path: Path) -> None:
    module, batch = load("qwen3_moe", tmp_path).train(), documents(20)
    ours, gradients = loss_and_gradients(module, batch)
    checkpoint_activations(module.model.get_base_model())
    again, recomputed = loss_and_gradients(module, batch)
    assert again == ours
    torch.testing.assert_close(recomputed, gradients)


def test_nothing_as_large_as_the_experts_is_kept(tmp_path: Path) -> None:
    module, batch = load("qwen3_moe", tmp_path), documents(20)
    experts = [parameter for name, parameter in module.named_parameters() if ".experts." in name]
    largest = 4 * 96 * 64 * 4

    def kept() -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter) and tensor.untyped_storage().nbytes() >= largest:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            module(batch)
        weights = {each.untyped_storage().data_ptr() for each in experts}
        return len(sizes.keys() - weights)

    assert kept() == 0
    as_peft_has_it(module)
    assert kept() > 0


@settings(max_examples=25, deadline=None)
@given(
    experts=st.integers(1, 9),
    chosen=st.integers(1, 4),
    tokens=st.integers(1, 30),
    rank=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_any_routing_gives_the_products_of_peft(experts: int, chosen: int, tokens: int, rank: int, seed: int) -> None:
    """Experts without a token too, and with all of them."""
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(hidden_size=16, moe_intermediate_size=8, num_experts=experts)
    config._experts_implementation = "eager"
    parent = torch.nn.ModuleDict({"experts": Qwen3MoeExperts(config)})
    for parameter in parent.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    targets = ["experts.gate_up_proj", "experts.down_proj"]
    model = get_peft_model(parent, LoraConfig(r=rank, target_modules=[], target_parameters=targets))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    module = model.base_model.model["experts"]
    x = torch.randn(tokens, 16)
    picks = torch.stack([torch.randperm(experts)[: min(chosen, experts)] for _ in range(tokens)])
    weights = torch.rand(picks.shape)

    def outcome() -> list[torch.Tensor]:
        model.zero_grad()
        inputs = [x.clone().requires_grad_(), weights.clone().requires_grad_()]
        output = module(inputs[0], picks, inputs[1])
        output.square().sum().backward()
        return [
            output.detach(),
            *(each.grad for each in inputs),
            *(p.grad for p in module.parameters() if p.requires_grad),
        ]

    expected = outcome()
    fuse_experts(model)
    assert type(module) is FusedExperts
    for ours, of_peft in zip(outcome(), expected, strict=True):
        assert (ours - of_peft).norm() <= 1e-4 * of_peft.norm() + 1e-6
