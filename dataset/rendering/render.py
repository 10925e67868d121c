"""From an example to the text that the model reads, and the spans of it that are learned."""

import re

from contract.failure import FailureCode, InputError
from dataset.example import (
    Conversation,
    Example,
    PlainText,
    Preference,
    RatedAnswer,
    conversations_of,
)
from dataset.rendering.apply_template import apply_template, refuse_model
from dataset.rendering.left_out import (
    check_is_written,
    check_thought_is_written,
    check_turn_is_written,
    has_thought,
    last_of_each_kind,
    thought_of,
)
from dataset.rendering.tokenizer import Tokenizer, begin_of_text, end_of_text

Span = tuple[int, int]
"""Begin and end of a piece of text, in characters."""

Text = tuple[str, list[Span]]
"""A text that the model reads, with the spans of its answers."""


def render(tokenizer: Tokenizer, example: Example) -> list[Text]:
    """The texts of an example: those of a conversation, one of a rated answer, and two of a pair, the chosen one first.
    Raises InputError that names the row."""
    match example:
        case PlainText():
            begin, end = begin_of_text(tokenizer), end_of_text(tokenizer, "a text") if example.ends else ""
            return [(begin + example.text + end, [(len(begin), len(begin + example.text + end))])]
        case Conversation():
            return _render_conversation(tokenizer, example)
        case Preference() | RatedAnswer():
            return [_render_as_one(tokenizer, each) for each in conversations_of(example)]


def _render_as_one(tokenizer: Tokenizer, example: Conversation) -> Text:
    """Answers are compared by the probability of one text."""
    texts = _render_conversation(tokenizer, example)
    if len(texts) > 1:
        refuse_model(
            example,
            f"writes {len(texts)} texts for {sum(example.supervised)} answers, since it writes one differently once "
            "others follow; leave one answer after the prompt, or give the others a weight of 0",
        )
    return texts[0]


def _render_conversation(tokenizer: Tokenizer, example: Conversation) -> list[Text]:
    """A conversation is one text, as the model's chat template writes it, unless the template writes a turn differently
    once others follow: many omit the reasoning of earlier turns. Then there is one text per answer, up to that answer,
    as the model sees it when it answers.
    """
    whole = apply_template(tokenizer, example, example.messages)
    check_is_written(tokenizer, example, whole, range(len(example.messages)))
    answers = [_render_answer(tokenizer, example, index) for index, learned in enumerate(example.supervised) if learned]
    if all(whole.startswith(text) for text, _ in answers):
        return [(whole, [span for _, span in answers])]
    return [(text, [span]) for text, span in answers]


def render_prompt(tokenizer: Tokenizer, example: Conversation) -> str:
    """The conversation up to its next answer, as `render` has it before an answer. Raises InputError.

    Checks one message of each kind: to check all takes a time that grows with the square of their number.
    """
    whole = apply_template(tokenizer, example, example.messages)
    check_is_written(tokenizer, example, whole, last_of_each_kind(example.messages))
    return apply_template(tokenizer, example, example.messages, answer_next=True)


def _render_answer(tokenizer: Tokenizer, example: Conversation, index: int) -> tuple[str, Span]:
    """The conversation up to the answer messages[index], and the span of that answer.

    Few templates mark answers, so the span is found by rendering the messages before it as well.
    """
    if index == 0:
        raise InputError(
            FailureCode.DATASET_INVALID,
            f"{example.where}: begins with an answer, messages[0], that nothing asks for; give the user's message "
            "before it, or give it a weight of 0",
            "dataset",
        )
    before = apply_template(tokenizer, example, example.messages[:index], answer_next=True)
    text = apply_template(tokenizer, example, example.messages[: index + 1])
    check_turn_is_written(tokenizer, example, index, text)
    if not text.startswith(before):
        text = before + _as_generated(tokenizer, example, index, before, text)
    check_thought_is_written(example, index, text[len(before) :])
    return text, (len(before), len(text))


def _as_generated(tokenizer: Tokenizer, example: Conversation, index: int, before: str, text: str) -> str:
    """The text to generate after `before`, if the template begins an answer differently from how it writes it later.

    DeepSeek-R1's, for one, opens `<think>` when an answer is due, and omits the reasoning of earlier answers. The
    reasoning is then learned as it would be generated; an answer without reasoning closes the tag.
    """
    message = example.messages[index]
    header, end = _around_answer(tokenizer, example, index)
    if not (before.startswith(header) and text.startswith(header)):
        return _after_history(example, index, text, _shortened_prompt(tokenizer, example, index, before, header))
    opened, written = before[len(header) :], text[len(header) :]
    # The template may have omitted the reasoning, but the row has it.
    for said in (message["content"].lstrip() + end, written.lstrip()):
        if opened.strip() and said.startswith(opened.strip()):
            return said[len(opened.strip()) :].lstrip("\n")
    tag = re.fullmatch(r"\s*<(\w+)>\s*", opened)
    if tag is None or (thought_of(message) and has_thought(message, written)):
        return written
    return f"{thought_of(message)}\n</{tag[1]}>\n\n{written}".lstrip("\n")


def _around_answer(tokenizer: Tokenizer, example: Conversation, index: int) -> tuple[str, str]:
    """What the template writes before and after an answer in the place of messages[index]: the common parts of two
    renderings whose answers differ in one letter. Only the first part if they differ elsewhere too."""
    one, other = (
        apply_template(tokenizer, example, [*example.messages[:index], {"role": "assistant", "content": content}])
        for content in "ab"
    )
    begin, _, end = one.rpartition("a")
    return (begin, end) if f"{begin}b{end}" == other else (one, "")


def _shortened_prompt(tokenizer: Tokenizer, example: Conversation, index: int, before: str, header: str) -> str:
    """The prompt for the answer as the template writes it once the answer is there; empty if it cannot be found."""
    question = before.removeprefix(apply_template(tokenizer, example, example.messages[:index]))
    history, found, _ = header.rpartition(question) if question else ("", "", "")
    return history + found if found else ""


def _after_history(example: Conversation, index: int, text: str, prompt: str) -> str:
    """The answer messages[index], if the template shortens earlier messages once the answer is there.

    gpt-oss's omits the assistant's reasoning before its calls. The model still sees it when the answer is due, so the
    answer is the part of `text` after the shortened prompt.
    """
    if prompt and any(map(thought_of, example.messages[:index])) and text.startswith(prompt):
        return text[len(prompt) :]
    if thought_of(example.messages[index]):
        refuse_model(
            example,
            f"has no place for reasoning_content when messages[{index}] is due; for many models the row needs "
            '"chat_template_kwargs": {"enable_thinking": true}',
        )
    refuse_model(
        example,
        f"writes the conversation before messages[{index}] in another way once the answer is there, so its "
        "tokens cannot be identified; name another template in dataset.chat_template, or use another model",
    )
