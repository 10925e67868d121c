"""What the model answers to prompts that are held out of training, for people to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataset.document import Document
from trainer.loss import SupervisedLoss
from trainer.stop import Stop

_LONGEST_TEXT = 4_000
"""Characters of each, that people are shown."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a held-out document, and how it goes on there; both as tokens, neither empty."""

    input_ids: list[int]
    expected: list[int]


@dataclass(frozen=True)
class Answer:
    """As text, without special tokens; of a long prompt the end, of the others the beginning."""

    prompt: str
    expected: str
    generated: str


def sample_prompts(documents: Sequence[Document], count: int) -> list[Prompt]:
    """Of the first `count` documents; they ask for the last answer. Plain text goes on from its middle."""
    return [_prompt(document) for document in documents[:count]]


def _prompt(document: Document) -> Prompt:
    flags = document.supervised
    end = max(index for index, learned in enumerate(flags) if learned) + 1
    begin = next(index for index in range(end, 0, -1) if not flags[index - 1])
    if begin == 1:
        begin = max(1, end // 2)
    return Prompt(document.input_ids[:begin], document.input_ids[begin:end])


def answer_prompts(
    module: SupervisedLoss, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int, stop: Stop, *, sharded: bool
) -> list[Answer]:
    """Nothing when asked to stop meanwhile. Where the weights are `sharded`, all ranks must call this together."""
    answers = []
    for prompt in prompts:
        ends = _end_tokens(module, tokenizer, prompt)
        generated = module.generate(prompt.input_ids, max_new_tokens, ends, stop, sharded=sharded)
        parts = (prompt.input_ids, prompt.expected, generated)
        asked, expected, said = (tokenizer.decode(part, skip_special_tokens=True) for part in parts)
        answers.append(Answer(asked[-_LONGEST_TEXT:], expected[:_LONGEST_TEXT], said[:_LONGEST_TEXT]))
    return [] if stop.asked else answers


def _end_tokens(module: SupervisedLoss, tokenizer: Any, prompt: Prompt) -> list[int]:
    """The model's own, and the one that the expected answer ends with: a template may have one that the model has not
    been told of. An answer that was cut at max_length ends with a token like any other."""
    own = module.model.get_base_model().generation_config.eos_token_id
    ends = {own} if isinstance(own, int) else set(own or [])
    return sorted(ends | ({prompt.expected[-1]} & set(tokenizer.all_special_ids)))
