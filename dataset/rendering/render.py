"""From an example to the text that the model reads, and the spans of it that are learned."""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError

from contract.failure import FailureCode, InputError
from dataset.example import ChatMessage, Conversation, Example, PlainText
from dataset.rendering.template_variables import unread_arguments
from dataset.rendering.tokenizer import Tokenizer, begin_of_text, end_of_text

Span = tuple[int, int]
"""Begin and end of a piece of text, in characters."""

_WITH_THOUGHTS = (
    "use a model whose template writes thoughts, or write them into the content as the model does, such as "
    '"<think>...</think>"'
)
_WITH_TOOLS = 'set dataset.chat_template to "chatml", use a model that calls tools, or leave such rows out'


def render(tokenizer: Tokenizer, example: Example) -> list[tuple[str, list[Span]]]:
    """The texts of an example, each with the spans of its answers. Raises InputError that names the row.

    A conversation is one text, as the model's chat template writes it, unless the template writes a turn differently
    once others follow: many omit the reasoning of earlier turns. Then there is one text per answer, up to that answer,
    as the model sees it when it answers.
    """
    if isinstance(example, PlainText):
        begin, end = begin_of_text(tokenizer), end_of_text(tokenizer, "a text") if example.ends else ""
        return [(begin + example.text + end, [(len(begin), len(begin + example.text + end))])]
    whole = _apply_template(tokenizer, example, example.messages)
    _check_arguments_are_read(tokenizer, example)
    _check_system_is_written(tokenizer, example, whole)
    _check_tools_are_written(tokenizer, example, whole)
    answers = [_render_answer(tokenizer, example, index) for index, learned in enumerate(example.supervised) if learned]
    if all(whole.startswith(text) for text, _ in answers):
        return [(whole, [span for _, span in answers])]
    return [(text, [span]) for text, span in answers]


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
    before = _apply_template(tokenizer, example, example.messages[:index], answer_next=True)
    text = _apply_template(tokenizer, example, example.messages[: index + 1])
    _check_turn_is_written(tokenizer, example, index, text)
    if not text.startswith(before):
        text = before + _as_generated(tokenizer, example, index, before, text)
    _check_thought_is_written(example, index, text[len(before) :])
    return text, (len(before), len(text))


def _check_turn_is_written(tokenizer: Tokenizer, example: Conversation, index: int, text: str) -> None:
    """Raises InputError if the answer messages[index], or the question before it, has no effect on the text."""
    questions = [number for number in range(index) if example.messages[number]["role"] == "user"]
    for number in (index, *questions[-1:]):
        message = example.messages[number]
        content = message["content"].strip()
        if content in text:
            continue
        other: ChatMessage = {**message, "content": "b" if content == "a" else "a"}
        changed = [*example.messages[:number], other, *example.messages[number + 1 : index + 1]]
        if text == _render_without(tokenizer, example, changed):
            _refuse_model(
                example,
                f"leaves out the content of messages[{number}]; name another template in dataset.chat_template, or use "
                "another model",
            )


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
    if tag is None or (_thought_of(message) and _has_thought(message, written)):
        return written
    return f"{_thought_of(message)}\n</{tag[1]}>\n\n{written}".lstrip("\n")


def _around_answer(tokenizer: Tokenizer, example: Conversation, index: int) -> tuple[str, str]:
    """What the template writes before and after an answer in the place of messages[index]: the common parts of two
    renderings whose answers differ in one letter. Only the first part if they differ elsewhere too."""
    one, other = (
        _apply_template(tokenizer, example, [*example.messages[:index], {"role": "assistant", "content": content}])
        for content in "ab"
    )
    begin, _, end = one.rpartition("a")
    return (begin, end) if f"{begin}b{end}" == other else (one, "")


def _shortened_prompt(tokenizer: Tokenizer, example: Conversation, index: int, before: str, header: str) -> str:
    """The prompt for the answer as the template writes it once the answer is there; empty if it cannot be found."""
    question = before.removeprefix(_apply_template(tokenizer, example, example.messages[:index]))
    history, found, _ = header.rpartition(question) if question else ("", "", "")
    return history + found if found else ""


def _after_history(example: Conversation, index: int, text: str, prompt: str) -> str:
    """The answer messages[index], if the template shortens earlier messages once the answer is there.

    gpt-oss's omits the assistant's reasoning before its calls. The model still sees it when the answer is due, so the
    answer is the part of `text` after the shortened prompt.
    """
    if prompt and any(map(_thought_of, example.messages[:index])) and text.startswith(prompt):
        return text[len(prompt) :]
    if _thought_of(example.messages[index]):
        _refuse_model(
            example,
            f"has no place for reasoning_content when messages[{index}] is due; for many models the row needs "
            '"chat_template_kwargs": {"enable_thinking": true}',
        )
    _refuse_model(
        example,
        f"writes the conversation before messages[{index}] in another way once the answer is there, so its "
        "tokens cannot be identified; name another template in dataset.chat_template, or use another model",
    )


def _thought_of(message: ChatMessage) -> str:
    return message.get("reasoning_content", "").strip()


def _has_thought(message: ChatMessage, learned: str) -> bool:
    """Looks only before the content, which may contain the same words."""
    content = message["content"].strip()
    before, said, _ = learned.rpartition(content) if content else (learned, "", "")
    return _thought_of(message) in (before if said else learned)


def _check_thought_is_written(example: Conversation, index: int, learned: str) -> None:
    """Many templates deliberately omit an earlier turn's reasoning from later texts. They must not omit it from the
    text in which its own answer is learned."""
    if not _has_thought(example.messages[index], learned):
        _refuse_model(example, f"leaves out reasoning_content of messages[{index}]; {_WITH_THOUGHTS}")
    content = example.messages[index]["content"].lstrip()
    if content.startswith("<think>") and learned.count("</think>") > content.count("</think>"):
        _refuse_model(
            example,
            f"writes a thought of its own before the one in the content; give what messages[{index}] thinks as "
            "reasoning_content",
        )


def _check_arguments_are_read(tokenizer: Tokenizer, example: Conversation) -> None:
    ignored = unread_arguments(tokenizer.chat_template, example.template_arguments)
    if ignored:
        _refuse_model(
            example, f"has no use for {', '.join(ignored)} of chat_template_kwargs; leave it out, or use another model"
        )


def _check_system_is_written(tokenizer: Tokenizer, example: Conversation, whole: str) -> None:
    for index, message in enumerate(example.messages):
        # A default system message may have the same words.
        if message["role"] != "system" or message["content"].strip() in whole:
            continue
        if whole == _render_without(tokenizer, example, [*example.messages[:index], *example.messages[index + 1 :]]):
            _refuse_model(
                example,
                f"leaves out the system message messages[{index}]; write it into the first question, or name another "
                "template in dataset.chat_template",
            )


def _check_tools_are_written(tokenizer: Tokenizer, example: Conversation, whole: str) -> None:
    """Many templates omit what they do not know, and the model would learn to say nothing."""
    if example.tools and whole == _render_without(tokenizer, example, example.messages, with_tools=False):
        _refuse_model(example, f"leaves out the tools; {_WITH_TOOLS}")
    for index, message in enumerate(example.messages):
        earlier, until = example.messages[:index], example.messages[: index + 1]
        if message.get("tool_calls"):
            _check_calls_are_written(tokenizer, example, index)
        elif message["role"] == "tool" and (
            _apply_template(tokenizer, example, until) == _render_without(tokenizer, example, earlier)
        ):
            _refuse_model(example, f"leaves out what the tool says in messages[{index}]; {_WITH_TOOLS}")


def _check_calls_are_written(tokenizer: Tokenizer, example: Conversation, index: int) -> None:
    earlier, message = example.messages[:index], example.messages[index]
    written = _apply_template(tokenizer, example, [*earlier, message])
    bare = message.copy()
    del bare["tool_calls"]
    if written == _render_without(tokenizer, example, [*earlier, bare]):
        _refuse_model(example, f"leaves out the calls of messages[{index}]; {_WITH_TOOLS}")
    first: ChatMessage = {**message, "tool_calls": message["tool_calls"][:1]}
    if first != message and written == _render_without(tokenizer, example, [*earlier, first]):
        _refuse_model(
            example,
            f"leaves out calls of messages[{index}] after the first; give each a message of its own, with what the "
            "tool gives back after it",
        )
    silent: ChatMessage = {**message, "content": ""}
    if message["content"].strip() and written == _render_without(tokenizer, example, [*earlier, silent]):
        _refuse_model(
            example,
            f"leaves out the content of messages[{index}], beside its calls; leave it out of the row, or set "
            'dataset.chat_template to "chatml"',
        )


def _render_without(
    tokenizer: Tokenizer, example: Conversation, messages: list[ChatMessage], with_tools: bool = True
) -> str | None:
    """None if the template refuses the example without the part: then it reads that part."""
    try:
        return _apply_template(tokenizer, example, messages, with_tools=with_tools)
    except InputError:
        return None


def _apply_template(
    tokenizer: Tokenizer,
    example: Conversation,
    messages: list[ChatMessage],
    *,
    answer_next: bool = False,
    with_tools: bool = True,
) -> str:
    if tokenizer.chat_template is None:
        raise InputError(
            FailureCode.MODEL_UNSUPPORTED,
            "model: its tokenizer has no chat template, so conversations cannot be rendered; name one in "
            "dataset.chat_template, or use the instruct or chat version of the model",
            "model",
        )
    try:
        written: str = tokenizer.apply_chat_template(
            [_as_templates_read(message) for message in messages],
            tools=example.tools if with_tools else None,
            tokenize=False,
            add_generation_prompt=answer_next,
            **example.template_arguments,
        )
    # Errors of the template that jinja lets through.
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise InputError(
            FailureCode.DATASET_INVALID,
            f"{example.where}: the model's chat template refuses it: {error}",
            "dataset",
        ) from error
    return written


def _as_templates_read(message: ChatMessage) -> Mapping[str, Any]:
    """The message with its reasoning under every name that templates use: reasoning_content (Qwen3, DeepSeek, GLM),
    thinking (gpt-oss) and reasoning (Gemma). transformers adds thinking itself, in the first place."""
    thought = message.get("reasoning_content")
    return message if thought is None else {"thinking": thought, **message, "reasoning": thought}


def _refuse_model(example: Conversation, problem: str) -> NoReturn:
    raise InputError(FailureCode.MODEL_UNSUPPORTED, f"{example.where}: the model's chat template {problem}", "dataset")
