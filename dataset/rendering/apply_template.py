"""Applies a model's chat template to the messages of an example."""

from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError

from contract.failure import FailureCode, InputError
from dataset.example import ChatMessage, Conversation
from dataset.rendering.tokenizer import Tokenizer


def apply_template(
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


def render_without(
    tokenizer: Tokenizer, example: Conversation, messages: list[ChatMessage], with_tools: bool = True
) -> str | None:
    """None if the template refuses the example without the part: then it reads that part."""
    try:
        return apply_template(tokenizer, example, messages, with_tools=with_tools)
    except InputError:
        return None


def _as_templates_read(message: ChatMessage) -> Mapping[str, Any]:
    """The message with its reasoning under every name that templates use: reasoning_content (Qwen3, DeepSeek, GLM),
    thinking (gpt-oss) and reasoning (Gemma). transformers adds thinking itself, in the first place."""
    thought = message.get("reasoning_content")
    return message if thought is None else {"thinking": thought, **message, "reasoning": thought}


def refuse_model(example: Conversation, problem: str) -> NoReturn:
    raise InputError(FailureCode.MODEL_UNSUPPORTED, f"{example.where}: the model's chat template {problem}", "dataset")
