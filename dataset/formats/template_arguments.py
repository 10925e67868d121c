"""A row's chat_template_kwargs: what it gives its chat template beside messages and tools."""

from typing import Any

from contract.quote import cut, quote
from dataset.fields import check_json, parse_text, says_nothing
from dataset.refusal import BadRow

# The parameters of apply_chat_template and of what it calls, and the names that every template finds.
RESERVED = frozenset(
    {"self", "conversation", "conversations", "messages", "tools", "documents", "chat_template"}
    | {"add_generation_prompt", "continue_final_message", "tokenize", "sanitize_control_tokens", "tokenizer_kwargs"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"}
    | {"raise_exception", "strftime_now", "dict", "namespace", "range", "loop"}
)


def read_arguments(value: Any) -> dict[str, Any]:
    """The arguments but for nulls, which Parquet writes for each that only other rows have. Raises BadRow."""
    where = "chat_template_kwargs"
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    if says_nothing(given):
        return {}
    if not isinstance(given, dict):
        raise BadRow(f'{where} must be an object, such as {{"enable_thinking": false}}, not {quote(given)}')
    arguments = {name: argument for name, argument in given.items() if argument is not None}
    for name in arguments:
        if not name.isidentifier() or name.startswith("_"):
            raise BadRow(f'{where} has "{cut(name, 40)}", which is no name of an argument')
        if name in RESERVED or name.endswith("_token"):
            raise BadRow(f"{where} has {name}, which is set for all rows; leave it out")
    check_json(where, arguments)
    return arguments
