"""LoRA of routed experts as grouped products, differentiated as one function.

PEFT adds s B A to the matrices of all experts in each forward pass, keeps the sums for the backward pass, and computes
their gradients whole before those of A and B. Here each expert's tokens go through W, A and B one after another, so
nothing is as large as the experts. torch's grouped products take all experts of a layer at once, on a CPU and on a GPU.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import ParamWrapper

_UP, _DOWN = ("gate_up_proj", "up_proj"), "down_proj"
_ALIGNED = 16
"""Grouped products take rows of a multiple of so many bytes."""


def fuse_experts(model: torch.nn.Module) -> None:
    """Fuses modules that go through transformers' interface for experts. Others keep PEFT's forward pass, which is
    correct and slower: Llama 4's, JetMoE's, those with trained biases, and all of them before torch 2.10."""
    if not hasattr(F, "grouped_mm"):
        return
    wrappers = [module for module in model.modules() if type(module) is ParamWrapper]
    inner = {id(wrapper.base_layer) for wrapper in wrappers}
    for wrapper in wrappers:
        if id(wrapper) not in inner and _is_plain(wrapper.get_base_layer()):
            wrapper.__class__ = FusedExperts


def _is_plain(experts: torch.nn.Module) -> bool:
    weights = [each for each in experts.parameters() if each.dim() == 3]
    return (
        hasattr(experts, "is_concatenated")
        and not any(each.requires_grad for each in experts.parameters())
        and not any(size * each.element_size() % _ALIGNED for each in weights for size in each.shape[1:])
    )


class FusedExperts(ParamWrapper):
    """The outermost wrapper of a module of experts."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # As in trainer.model.fused_lora.
        if torch.is_autocast_enabled(x.device.type) or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        return _experts(self, x, *args, **kwargs)


@dataclass(frozen=True)
class _Routes:
    """The pairs of a token and an expert, [tokens x k], in the order of the experts."""

    tokens: torch.Tensor
    """The token of each pair."""
    experts: torch.Tensor
    """The expert of each pair."""
    back: torch.Tensor
    """The place of each pair in the order of the tokens."""
    ends: torch.Tensor
    """[experts] int32, the end of each expert's pairs."""


def _routes(top_k_index: torch.Tensor, experts: int) -> _Routes:
    chosen = top_k_index.reshape(-1)
    of_pair, order = torch.sort(chosen, stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    numbers = torch.arange(experts, device=order.device)
    ends = torch.searchsorted(of_pair, numbers, right=True).to(torch.int32)
    return _Routes(order // top_k_index.shape[-1], of_pair, back, ends)


@torch.compiler.disable
def _experts(
    wrapper: ParamWrapper, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """As transformers.integrations.moe.grouped_mm_experts_forward, with LoRA."""
    experts = wrapper.get_base_layer()
    adapters = _adapters(wrapper)
    routes = _routes(top_k_index, experts.num_experts)
    up = next(name for name in _UP if hasattr(experts, name))
    projected = _project(experts, up, adapters.get(up), hidden_states, routes)
    inner = experts._apply_gate(projected) if experts.has_gate else experts.act_fn(projected)
    output = _project(experts, _DOWN, adapters.get(_DOWN), inner, routes)
    if experts.has_post_expert_norm:
        output = experts.post_expert_norm(output)
    weighted = (output[routes.back].view(*top_k_index.shape, -1) * top_k_weights[..., None]).sum(dim=1)
    return weighted.to(hidden_states.dtype)


def _adapters(wrapper: ParamWrapper) -> dict[str, ParamWrapper]:
    """The nested wrappers by the names of their parameters."""
    found: dict[str, ParamWrapper] = {}
    while isinstance(wrapper, ParamWrapper):
        found[wrapper.parameter_name] = wrapper
        wrapper = wrapper.base_layer
    return found


def _project(experts: Any, name: str, adapter: ParamWrapper | None, x: torch.Tensor, routes: _Routes) -> torch.Tensor:
    """[pairs, out] of x [tokens, in], or of x [pairs, in] for the last projection."""
    gathered = None if name == _DOWN else routes.tokens
    weight = getattr(experts, name)
    x = x.to(weight.dtype)
    weight = weight if experts.is_transposed else weight.transpose(1, 2)
    if adapter is None:
        output = F.grouped_mm(x if gathered is None else x[gathered], weight, offs=routes.ends)
    else:
        (of,) = adapter.lora_A
        lora = adapter.lora_A[of].weight, adapter.lora_B[of].weight, adapter.scaling[of]
        output = _ExpertProducts.apply(x, *lora, weight, routes, gathered)
    if experts.has_bias:
        output = output + getattr(experts, f"{name}_bias")[routes.experts]
    return output


class _ExpertProducts(torch.autograd.Function):
    """x W_e + s x A_e^T B_e^T for the pairs of each expert e, with W [experts, in, out] frozen. PEFT has all A in one
    matrix [experts r, in], and all B in one [out, r experts]."""

    @staticmethod
    def forward(  # parameters: a function's inputs
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        weight: torch.Tensor,
        routes: _Routes,
        gathered: torch.Tensor | None,
    ) -> torch.Tensor:
        pairs = x if gathered is None else x[gathered]
        inner = F.grouped_mm(pairs, _each_a(a, scaling, weight).transpose(1, 2), offs=routes.ends)
        output = F.grouped_mm(pairs, weight, offs=routes.ends)
        output += F.grouped_mm(inner, _each_b(b, weight).transpose(1, 2), offs=routes.ends)
        ctx.save_for_backward(x, a, b, inner, weight)
        ctx.scaling, ctx.routes, ctx.gathered = scaling, routes, gathered
        return output

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, a, b, inner, weight = ctx.saved_tensors
        routes: _Routes = ctx.routes
        experts, ends = len(weight), routes.ends
        of_output = upstream[0].contiguous()
        of_inner = F.grouped_mm(of_output, _each_b(b, weight), offs=ends)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = F.grouped_mm(of_output, weight.transpose(1, 2), offs=ends)
            of_x += F.grouped_mm(of_inner, _each_a(a, ctx.scaling, weight), offs=ends)
            if ctx.gathered is not None:
                of_x = of_x[routes.back].view(len(x), -1, x.shape[1]).sum(dim=1)
        rank = len(a) // experts
        pairs = x if ctx.gathered is None else x[ctx.gathered]
        of_each_a = F.grouped_mm(of_inner.T, pairs, offs=ends)[:, :rank]
        of_each_b = F.grouped_mm(of_output.T, inner, offs=ends)[:, :, :rank]
        of_a = of_each_a.reshape(a.shape).to(a.dtype).mul_(ctx.scaling)
        of_b = of_each_b.permute(1, 2, 0).reshape(b.shape).to(b.dtype)
        return of_x, of_a, of_b, None, None, None, None


def _each_a(a: torch.Tensor, scaling: float, weight: torch.Tensor) -> torch.Tensor:
    """s A_e of each expert, [experts, r, in], in the format of the weights."""
    each = (a * scaling).to(weight.dtype).view(len(weight), -1, a.shape[1])
    return F.pad(each, (0, 0, 0, _padding(each.shape[1], weight)))


def _each_b(b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """B_e of each expert, [experts, out, r]."""
    each = b.to(weight.dtype).view(len(b), -1, len(weight)).permute(2, 0, 1)
    return F.pad(each, (0, _padding(each.shape[2], weight))).contiguous()


def _padding(rank: int, weight: torch.Tensor) -> int:
    return -rank % (_ALIGNED // weight.element_size())
