"""What the model answers to prompts that are held out of training, for people to read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dataset.document import Document
from dataset.rendering.folder_tokenizer import FolderTokenizer

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
    generate: Callable[[list[int]], list[int]], tokenizer: FolderTokenizer, prompts: Sequence[Prompt]
) -> list[Answer]:
    """`generate` gives the tokens that follow a prompt's."""
    answers = []
    for prompt in prompts:
        parts = (prompt.input_ids, prompt.expected, generate(prompt.input_ids))
        asked, expected, said = (tokenizer.decode(part, skip_special_tokens=True) for part in parts)
        answers.append(Answer(asked[-_LONGEST_TEXT:], expected[:_LONGEST_TEXT], said[:_LONGEST_TEXT]))
    return answers
