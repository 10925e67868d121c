"""A nucleus has the most likely tokens, and is found without sorting the whole vocabulary."""

import time
from collections.abc import Callable

import pytest
import torch

from inference.row import _nucleus

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


def least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
