"""One answer in the making: its tokens, and how the next one is chosen."""

import math
from dataclasses import dataclass, field

import torch

from contract.inference import Sampling

BASE = "__base__"
"""PEFT's name for no adapter."""

_MOST_ANSWERS = 1 << 16
_GREEDY_TEMPERATURE = 1e-5
"""Below it the most likely token is taken: a smaller divisor leaves the range of fp32."""
_GREEDY_TOP_P = 1e-6
"""Less than the share of the most likely of a million tokens."""
_LIKELY = 1024
"""Number of tokens that nearly every nucleus fits into. To sort a whole vocabulary takes longer than many a step."""


@dataclass(eq=False)
class AnswerRow:
    adapter: str
    """PEFT's name of its adapter, or BASE."""
    tokens: list[int]
    """The prompt, and what was generated after it."""
    sampling: Sampling
    index: int
    """Number of the answer in its request."""
    _generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator()
        if self.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(self.seed)

    @property
    def seed(self) -> int | None:
        """Each of several answers has numbers of its own, whatever else is in the batch."""
        return None if self.sampling.seed is None else (self.sampling.seed * _MOST_ANSWERS + self.index) % 2**63

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature < _GREEDY_TEMPERATURE or self.sampling.top_p < _GREEDY_TOP_P

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, by its logits [V] in fp32 on the CPU. It is added to the tokens. Raises FloatingPointError
        for logits that are no numbers."""
        sampling = self.sampling
        highest = logits.max()
        if not highest.isfinite():
            raise FloatingPointError("the model's output is no number")
        if self.is_greedy:
            token = int(logits.argmax())
        else:
            probabilities = torch.softmax((logits - highest) / sampling.temperature, dim=-1)
            if sampling.top_p < 1:
                probabilities = _nucleus(probabilities, sampling.top_p)
            token = _drawn(probabilities, self._generator)
        self.tokens.append(token)
        return token


def _drawn(probabilities: torch.Tensor, generator: torch.Generator) -> int:
    """By one random number: torch.multinomial draws one for each token of the vocabulary, 20 times as slowly. Never
    gives an impossible token, as the number is below 1 and the sums are in fp64."""
    sums = probabilities.cumsum(dim=-1, dtype=torch.float64)
    place = torch.rand((), dtype=torch.float64, generator=generator) * sums[-1]
    return int(torch.searchsorted(sums, place, right=True))


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Without the least likely tokens beyond a sum of top_p (Holtzman et al. 2020, arXiv:1904.09751). The most likely
    one always stays."""
    ordered, places = probabilities.topk(min(_LIKELY, len(probabilities)))
    if ordered.sum() < top_p:
        ordered, places = probabilities.sort(descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered[before >= max(top_p, math.ulp(0.0))] = 0
    return torch.zeros_like(probabilities).scatter(0, places, ordered)
