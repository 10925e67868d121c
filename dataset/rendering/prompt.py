"""The tokens of a prompt, the same ones that training has before an answer."""

from typing import Any

from contract.failure import FailureCode, InputError
from dataset.example import Conversation
from dataset.formats.messages import read_messages
from dataset.formats.template_arguments import read_arguments
from dataset.formats.tool_use import read_tools
from dataset.refusal import BadRow
from dataset.rendering.render import render_prompt
from dataset.rendering.tokenizer import Tokenizer, begin_of_text


def chat_prompt(tokenizer: Tokenizer, messages: Any, tools: Any, arguments: Any) -> list[int]:
    """The conversation up to the place of its next answer. Raises InputError that names the field."""
    try:
        turns = read_messages("messages", messages)
        example = Conversation(
            [message for message, _ in turns],
            [False] * len(turns),
            read_tools(tools),
            where="messages",
            template_arguments=read_arguments(arguments),
        )
    except BadRow as error:
        raise _refused(str(error)) from error
    if not turns or turns[-1][0]["role"] == "assistant":
        given = "the last message is the assistant's" if turns else "there is no message"
        raise _refused(f"messages: {given}; end with a message that is to be answered")
    return _encode(tokenizer, render_prompt(tokenizer, example))


def text_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text to continue, begun as training begins texts without a chat template."""
    return _encode(tokenizer, begin_of_text(tokenizer) + text)


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer([text], add_special_tokens=False)["input_ids"][0]
    if not ids:
        raise _refused("prompt: it has no tokens; give a text to continue", "prompt")
    return ids


def _refused(message: str, param: str = "messages") -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, message, param)
