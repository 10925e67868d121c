"""The model's answers to held-out prompts, for people to read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dataset.document import Document
from dataset.rendering.folder_tokenizer import FolderTokenizer
from trainer.data.items import Item

_LONGEST_TEXT = 4_000
"""Maximum characters shown of each text."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a held-out document and its continuation there. Both are tokens and neither is empty."""

    input_ids: list[int]
    expected: list[int]


@dataclass(frozen=True)
class Answer:
    """Texts without special tokens, shortened: the end of a long prompt, the beginning of the others."""

    prompt: str
    expected: str
    generated: str


def sample_prompts(items: Sequence[Item], count: int) -> list[Prompt]:
    """Prompts from the first `count` items, each for the last answer, the better one of a pair. Plain text is continued
    from its middle."""
    return [_prompt(item.documents[0]) for item in items[:count]]


def _prompt(document: Document) -> Prompt:
    flags = document.supervised
    end = max(index for index, learned in enumerate(flags) if learned) + 1
    begin = next(index for index in range(end, 0, -1) if not flags[index - 1])
    if begin == 1:
        begin = max(1, end // 2)
    return Prompt(document.input_ids[:begin], document.input_ids[begin:end])


def answer_prompts(
    generate: Callable[[list[int]], list[int]], tokenizer: FolderTokenizer, prompts: Sequence[Prompt]
) -> list[Answer]:
    """`generate` returns the tokens that follow a prompt."""
    answers = []
    for prompt in prompts:
        parts = (prompt.input_ids, prompt.expected, generate(prompt.input_ids))
        prompt_text, expected, said = (tokenizer.decode(part, skip_special_tokens=True) for part in parts)
        answers.append(Answer(prompt_text[-_LONGEST_TEXT:], expected[:_LONGEST_TEXT], said[:_LONGEST_TEXT]))
    return answers
