"""One example as a question to ask a model, with its own answer beside it."""

import itertools
from typing import Any

from pydantic import BaseModel

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import conversations_of, rating_of


class HeldOutExample(BaseModel):
    messages: list[dict[str, Any]]
    """The conversation up to the answer."""
    reference: dict[str, Any]
    """The last answer that is learned, of a pair the better one."""
    desirable: bool | None
    """Whether the answer is rated as good; null if it has no rating."""
    tools: list[dict[str, Any]] | None
    chat_template_kwargs: dict[str, Any] | None
    """Arguments of the chat template."""


class FoundExample(BaseModel):
    example: HeldOutExample | None
    """None for plain text, which has no question."""


def find_example(file: DatasetFile, index: int) -> FoundExample:
    """The example at `index` of the file, from 0. Raises InputError for a bad row before it."""
    example = next(itertools.islice(read_examples(file), index, None), None)
    if example is None or not (conversations := conversations_of(example)):
        return FoundExample(example=None)
    found = conversations[0]
    answer = max(position for position, learned in enumerate(found.supervised) if learned)
    messages = [dict(message) for message in found.messages]
    return FoundExample(
        example=HeldOutExample(
            messages=messages[:answer],
            reference=messages[answer],
            desirable=rating_of(example),
            tools=found.tools,
            chat_template_kwargs=found.template_arguments or None,
        )
    )
