"""Tokens are drawn as often as their probabilities say, without a random number for each of the vocabulary."""

import torch

from contract.inference import Sampling
from inference.row import BASE, AnswerRow, _drawn
from tests.inference.test_nucleus import least_seconds, probabilities


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
