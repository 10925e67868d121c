"""Tokens are drawn as often as their probabilities say, with little work for a whole vocabulary."""

import time
from collections.abc import Callable

import pytest
import torch

from contract.inference import Sampling
from inference.row import BASE, AnswerRow, _drawn, _nucleus

VOCABULARY = 151936


def probabilities(deviation: float, size: int = VOCABULARY) -> torch.Tensor:
    """Those of random logits: the larger the deviation, the fewer tokens are likely."""
    return torch.softmax(deviation * torch.randn(size, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.mark.parametrize("size", [3, 1024, VOCABULARY])
@pytest.mark.parametrize("deviation", [0.5, 3, 10])
@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.9, 0.999])
def test_nucleus_is_the_smallest_that_reaches_top_p(size: int, deviation: float, top_p: float) -> None:
    given = probabilities(deviation, size)
    found = _nucleus(given, top_p)
    kept = found > 0
    assert torch.equal(found[kept], given[kept])
    assert found.sum() >= top_p - 1e-5
    assert kept.sum() == 1 or found.sum() - found[kept].min() < top_p + 1e-5
    if not kept.all():
        assert given[~kept].max() <= given[kept].min()


def test_nucleus_of_few_tokens_needs_no_sort() -> None:
    given = probabilities(10)
    assert least_seconds(lambda: _nucleus(given, 0.9)) < least_seconds(lambda: given.sort(descending=True)) / 2


def test_tokens_are_drawn_by_their_probabilities() -> None:
    given = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(1)
    drawn = torch.tensor([_drawn(given, generator) for _ in range(20_000)])
    shares = drawn.bincount(minlength=len(given)) / len(drawn)
    torch.testing.assert_close(shares, given, rtol=0, atol=0.015)
    assert not shares[given == 0].any()


def test_one_random_number_draws_a_token() -> None:
    row = AnswerRow(BASE, [], Sampling(temperature=0.7, seed=1), 0)
    logits = probabilities(3).log()
    assert least_seconds(lambda: row.choose(logits)) < least_seconds(lambda: logits.clone().exponential_()) / 2


def least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
