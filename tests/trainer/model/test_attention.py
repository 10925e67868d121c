"""Attention within the documents of a packed row, against a softmax over everything with a mask."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.model import attention
from trainer.model.attention import DocumentBounds, Reach, attend_documents


def bounds(lengths: list[int]) -> DocumentBounds:
    return DocumentBounds(lengths, torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32))


def visible(lengths: list[int], reach: Reach | None) -> torch.Tensor:
    """[T, T] True where a query sees a key."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.cat([torch.arange(length) for length in lengths])
    distance = place[:, None] - place
    seen = (document[:, None] == document) & (distance >= 0)
    if reach is not None and reach.chunked:
        seen &= place[:, None] // reach.tokens == place // reach.tokens
    elif reach is not None:
        seen &= distance < reach.tokens
    return seen


def over_everything(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(-1, -2) * 0.3
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~seen, -torch.inf).exp()
    total = weights.sum(dim=-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[None, :, None, None]
    return (weights / total @ value).transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1), (6, 3)]),
    widths=st.sampled_from([(8, 8), (12, 8), (5, 7)]),
    reach=st.none() | st.builds(Reach, st.integers(1, 30), st.booleans()),
    softcap=st.none() | st.just(1.5),
    with_sinks=st.booleans(),
    block=st.sampled_from([1, 4, 128]),
)
def test_packed_attention_is_that_of_each_document(
    lengths: list[int],
    heads: tuple[int, int],
    widths: tuple[int, int],
    reach: Reach | None,
    softcap: float | None,
    with_sinks: bool,
    block: int,
) -> None:
    torch.manual_seed(sum(lengths))
    query = torch.randn(1, heads[0], sum(lengths), widths[0], requires_grad=True)
    key = torch.randn(1, heads[1], sum(lengths), widths[0], requires_grad=True)
    value = torch.randn(1, heads[1], sum(lengths), widths[1], requires_grad=True)
    sinks = torch.randn(heads[0], requires_grad=True) if with_sinks else None
    inputs = [tensor for tensor in (query, key, value, sinks) if tensor is not None]
    expected = over_everything(query, key, value, visible(lengths, reach), softcap, sinks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_LEAST_BLOCK", block)
        ours, _ = attend_documents(
            torch.nn.Identity(),
            query,
            key,
            value,
            reach,
            documents=bounds(lengths),
            scaling=0.3,
            softcap=softcap,
            s_aux=sinks,
        )
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_windowed_blocks_compute_few_products() -> None:
    blocks = list(attention._blocks(4096, 128, before=0))
    assert sum((rows.stop - rows.start) * (keys.stop - keys.start) for rows, keys in blocks) < 4096 * 3 * 128


@pytest.mark.parametrize(
    "given",
    [{"attention_mask": torch.ones(1, 1, 4, 4)}, {"attention_mask": None, "position_bias": torch.ones(1, 2, 4, 4)}],
    ids=["a mask", "a bias"],
)
def test_unknown_kind_of_attention_is_refused(given: dict[str, torch.Tensor | None]) -> None:
    query = torch.randn(1, 2, 4, 8)
    with pytest.raises(NotImplementedError):
        attend_documents(torch.nn.Identity(), query, query, query, documents=bounds([4]), **given)
