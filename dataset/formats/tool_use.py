"""Tools and calls, as OpenAI and ShareGPT write them."""

from typing import Any

from contract.formatting import format_value
from dataset.example import ToolCall
from dataset.fields import as_list, as_text, check_json, is_blank, optional_list, parse_text
from dataset.refusal import BadRow

Tools = list[dict[str, Any]]

_FUNCTION = (None, "function")
"""The types of tools that exist."""
_OF_CALLS = ("name", "arguments", "id", "type", "index", "function")
"""Fields of a call. Others are passed over, unless one of them may hold the arguments."""


def read_tools(value: Any) -> Tools | None:
    """The tools in a list or in its JSON text, each {"type": "function", "function": {...}} or only {"name": ...}."""
    return [_tool(f"tools[{index}]", tool) for index, tool in enumerate(optional_list("tools", value, "tool"))] or None


def _tool(where: str, tool: Any) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, dict) and tool.get("type") in _FUNCTION else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow(
            f'{where} must be {{"type": "function", "function": {{"name": "...", "parameters": {{...}}}}}}, '
            f"not {format_value(tool)}"
        )
    check_json(where, function)
    if not is_blank(function.get("input_schema")):
        raise BadRow(f"{where}.input_schema is what chat templates call parameters; name it so")
    return {"type": "function", "function": {name: value for name, value in function.items() if name != "type"}}


def read_calls(where: str, value: Any) -> list[ToolCall]:
    """The tool_calls of an OpenAI message."""
    return [_call(f"{where}[{index}]", call) for index, call in enumerate(optional_list(where, value, "call"))]


def parse_calls(where: str, value: str) -> list[ToolCall]:
    """The calls in a function_call of ShareGPT: the JSON text of {"name": ..., "arguments": {...}}, or of a list of
    them."""
    calls = parse_text(where, value)
    return [_call(where, call) for call in as_list(where, calls if isinstance(calls, list) else [calls], "call")]


def _call(where: str, call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not function.get("name"):
        raise BadRow(
            f'{where} must be a call such as {{"name": "...", "arguments": {{...}}}}, not {format_value(call)}'
        )
    other = next((name for name in function if name not in _OF_CALLS and not is_blank(function[name])), None)
    if other is not None and is_blank(function.get("arguments")):
        raise BadRow(f"{where} has {format_value(other)} and no arguments; give what the function gets as arguments")
    read: ToolCall = {
        "type": "function",
        "function": {
            "name": as_text(f"{where}.name", function["name"]),
            "arguments": _arguments(f"{where}.arguments", function.get("arguments")),
        },
    }
    if call.get("id") is not None:
        read["id"] = as_text(f"{where}.id", call["id"])
    return read


def _arguments(where: str, value: Any) -> dict[str, Any]:
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    if given is None or given == "":
        return {}
    if not isinstance(given, dict):
        raise BadRow(f"{where} must be a JSON object, or its text, not {format_value(given)}")
    check_json(where, given)
    return given
