"""A row's chat_template_kwargs: arguments of the chat template besides messages and tools."""

from typing import Any

from contract.formatting import format_value, truncate
from dataset.fields import check_json, is_blank, parse_text
from dataset.refusal import BadRow

# Parameters of apply_chat_template and of what it calls, and names that every template finds.
RESERVED = frozenset(
    {"self", "conversation", "conversations", "messages", "tools", "documents", "chat_template"}
    | {"add_generation_prompt", "continue_final_message", "tokenize", "sanitize_control_tokens", "tokenizer_kwargs"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"}
    | {"raise_exception", "strftime_now", "dict", "namespace", "range", "loop"}
)


def read_arguments(value: Any) -> dict[str, Any]:
    """The arguments without nulls, which Parquet writes for each that only other rows have. Raises BadRow."""
    where = "chat_template_kwargs"
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    if is_blank(given):
        return {}
    if not isinstance(given, dict):
        raise BadRow(f'{where} must be an object, such as {{"enable_thinking": false}}, not {format_value(given)}')
    arguments = {name: argument for name, argument in given.items() if argument is not None}
    for name in arguments:
        if not name.isidentifier() or name.startswith("_"):
            raise BadRow(f'{where} has "{truncate(name, 40)}", which is not a valid argument name')
        if name in RESERVED or name.endswith("_token"):
            raise BadRow(f"{where} has {name}, which is set for all rows; leave it out")
    check_json(where, arguments)
    return arguments
