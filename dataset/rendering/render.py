"""From an example to the text that the model reads, and where in it is what it learns."""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError

from contract.failure import FailureCode, InputError
from dataset.example import Conversation, Example, Message, PlainText
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

    A conversation is one text, as the model's chat template writes it, unless the template writes a turn in another way
    once others follow: many leave out what the assistant thought in earlier turns. Then it is a text for each answer,
    up to that answer, as the model sees it when it gives it.
    """
    if isinstance(example, PlainText):
        begin, end = begin_of_text(tokenizer), end_of_text(tokenizer, "a text") if example.ends else ""
        return [(begin + example.text + end, [(len(begin), len(begin + example.text + end))])]
    whole = _apply_template(tokenizer, example, example.messages)
    _check_arguments_are_read(tokenizer, example)
    _check_system_is_written(tokenizer, example, whole)
    _check_tools_are_written(tokenizer, example, whole)
    answers = [_until_answer(tokenizer, example, index) for index, learned in enumerate(example.supervised) if learned]
    if all(whole.startswith(text) for text, _ in answers):
        return [(whole, [span for _, span in answers])]
    return [(text, [span]) for text, span in answers]


def _until_answer(tokenizer: Tokenizer, example: Conversation, index: int) -> tuple[str, Span]:
    """The conversation up to the answer messages[index], and where in it the answer is.

    Few templates mark the answers, so it is found by rendering the messages before it as well.
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
    if not text.startswith(before):
        text = before + _as_generated(tokenizer, example, index, before, text)
    _check_thought_is_written(example, index, text[len(before) :])
    return text, (len(before), len(text))


def _as_generated(tokenizer: Tokenizer, example: Conversation, index: int, before: str, text: str) -> str:
    """What the model has to say after `before` where the template begins an answer otherwise than it is written later.

    DeepSeek-R1's, for one, opens a thought, `<think>`, when an answer is due, and leaves out what earlier ones thought.
    Then what the answer thinks is learned as it would be generated; one that thinks nothing closes the thought.
    """
    message = example.messages[index]
    header, end = _around_answer(tokenizer, example, index)
    if not (before.startswith(header) and text.startswith(header)):
        return _after_history(tokenizer, example, index, before, text, header)
    opened, written = before[len(header) :], text[len(header) :]
    # The template may have left out what was thought: the row has it.
    for said in (message["content"].lstrip() + end, written.lstrip()):
        if opened.strip() and said.startswith(opened.strip()):
            return said[len(opened.strip()) :].lstrip("\n")
    tag = re.fullmatch(r"\s*<(\w+)>\s*", opened)
    if tag is None or (_thought_of(message) and _has_thought(message, written)):
        return written
    return f"{_thought_of(message)}\n</{tag[1]}>\n\n{written}".lstrip("\n")


def _around_answer(tokenizer: Tokenizer, example: Conversation, index: int) -> tuple[str, str]:
    """What the template writes before an answer in the place of messages[index], all of the conversation, and after it:
    what is the same for two answers of one letter. The first alone where that is not what they differ in."""
    one, other = (
        _apply_template(tokenizer, example, [*example.messages[:index], {"role": "assistant", "content": content}])
        for content in "ab"
    )
    begin, _, end = one.rpartition("a")
    return (begin, end) if f"{begin}b{end}" == other else (one, "")


def _after_history(tokenizer: Tokenizer, example: Conversation, index: int, before: str, text: str, header: str) -> str:
    """The answer messages[index] where the template shortens what comes before it once it is there.

    gpt-oss's leaves out what the assistant thought before its calls. The model still sees it when the answer is due, so
    the answer is learned after `before`: it is what `text` has after the words that ask for it.
    """
    asks = before.removeprefix(_apply_template(tokenizer, example, example.messages[:index]))
    history, found, _ = header.rpartition(asks) if asks else ("", "", "")
    if any(map(_thought_of, example.messages[:index])) and found and text.startswith(history + found):
        return text[len(history + found) :]
    if _thought_of(example.messages[index]):
        _refuse_model(
            example,
            f"has no place for reasoning_content when messages[{index}] is due; for many models the row needs "
            '"chat_template_kwargs": {"enable_thinking": true}',
        )
    _refuse_model(
        example,
        f"writes the conversation before messages[{index}] in another way once the answer is there, so its "
        "tokens cannot be told apart; name another template in dataset.chat_template, or use another model",
    )


def _thought_of(message: Message) -> str:
    return message.get("reasoning_content", "").strip()


def _has_thought(message: Message, learned: str) -> bool:
    """It comes before the content, which may have the same words."""
    content = message["content"].strip()
    before, said, _ = learned.rpartition(content) if content else (learned, "", "")
    return _thought_of(message) in (before if said else learned)


def _check_thought_is_written(example: Conversation, index: int, learned: str) -> None:
    """An earlier turn's thought may be left out of what follows it, as many templates do on purpose; of the text in
    which its own answer is learned it may not."""
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
        if whole == _without(tokenizer, example, [*example.messages[:index], *example.messages[index + 1 :]]):
            _refuse_model(
                example,
                f"leaves out the system message messages[{index}]; write it into the first question, or name another "
                "template in dataset.chat_template",
            )


def _check_tools_are_written(tokenizer: Tokenizer, example: Conversation, whole: str) -> None:
    """Many templates leave out what they do not know, and the model would learn to say nothing."""
    if example.tools and whole == _without(tokenizer, example, example.messages, with_tools=False):
        _refuse_model(example, f"leaves out the tools; {_WITH_TOOLS}")
    for index, message in enumerate(example.messages):
        earlier, until = example.messages[:index], example.messages[: index + 1]
        if message.get("tool_calls"):
            _check_calls_are_written(tokenizer, example, index)
        elif message["role"] == "tool" and (
            _apply_template(tokenizer, example, until) == _without(tokenizer, example, earlier)
        ):
            _refuse_model(example, f"leaves out what the tool says in messages[{index}]; {_WITH_TOOLS}")


def _check_calls_are_written(tokenizer: Tokenizer, example: Conversation, index: int) -> None:
    earlier, message = example.messages[:index], example.messages[index]
    written = _apply_template(tokenizer, example, [*earlier, message])
    bare = message.copy()
    del bare["tool_calls"]
    if written == _without(tokenizer, example, [*earlier, bare]):
        _refuse_model(example, f"leaves out the calls of messages[{index}]; {_WITH_TOOLS}")
    first: Message = {**message, "tool_calls": message["tool_calls"][:1]}
    if first != message and written == _without(tokenizer, example, [*earlier, first]):
        _refuse_model(
            example,
            f"leaves out calls of messages[{index}] after the first; give each a message of its own, with what the "
            "tool gives back after it",
        )
    silent: Message = {**message, "content": ""}
    if message["content"].strip() and written == _without(tokenizer, example, [*earlier, silent]):
        _refuse_model(
            example,
            f"leaves out the content of messages[{index}], beside its calls; leave it out of the row, or set "
            'dataset.chat_template to "chatml"',
        )


def _without(
    tokenizer: Tokenizer, example: Conversation, messages: list[Message], with_tools: bool = True
) -> str | None:
    """None where the template does not take it so: then it knows of what is left out."""
    try:
        return _apply_template(tokenizer, example, messages, with_tools=with_tools)
    except InputError:
        return None


def _apply_template(
    tokenizer: Tokenizer,
    example: Conversation,
    messages: list[Message],
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
    # What jinja lets through of the template's own mistakes.
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise InputError(
            FailureCode.DATASET_INVALID,
            f"{example.where}: the model's chat template refuses it: {error}",
            "dataset",
        ) from error
    return written


def _as_templates_read(message: Message) -> Mapping[str, Any]:
    """With all names of a thought: Qwen3's, DeepSeek's and GLM's templates read reasoning_content, gpt-oss's thinking,
    Gemma's reasoning. transformers adds thinking by itself, and in the first place."""
    thought = message.get("reasoning_content")
    return message if thought is None else {"thinking": thought, **message, "reasoning": thought}


def _refuse_model(example: Conversation, problem: str) -> NoReturn:
    raise InputError(FailureCode.MODEL_UNSUPPORTED, f"{example.where}: the model's chat template {problem}", "dataset")
