"""LLaMA-Factory v1's rows: OpenAI's, with a content of typed parts and the weight of each message."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dataset.example_files import WEATHER, read_conversation, refusal_of_row

CALL = {"name": "weather", "arguments": {"city": "Ulm"}}


def text(role: str, value: str, weight: float) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "value": value}], "loss_weight": weight}


def row(call: Any, result: str = "text") -> dict[str, Any]:
    parts = [{"type": "reasoning", "value": "Ask the tool."}, {"type": "tool_call", "value": call}]
    return {
        "messages": [
            text("system", "Be brief.", 0.0),
            text("user", "How is Ulm?", 0.0),
            {"role": "assistant", "content": parts, "loss_weight": 1.0},
            {"role": "tool", "content": [{"type": result, "value": "sunny"}], "loss_weight": 0.0},
            text("assistant", "Sunny.", 0.0),
        ],
        "tools": json.dumps([WEATHER]),
    }


@pytest.mark.parametrize("call", [CALL, json.dumps(CALL), json.dumps([CALL])], ids=["object", "text", "list"])
@pytest.mark.parametrize("result", ["text", "tool_result"])
def test_row_is_the_same_as_openais(tmp_path: Path, call: Any, result: str) -> None:
    openai = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is Ulm?"},
            {"role": "assistant", "reasoning_content": "Ask the tool.", "tool_calls": [{"function": CALL}]},
            {"role": "tool", "content": "sunny"},
            {"role": "assistant", "content": "Sunny.", "weight": 0},
        ],
        "tools": [WEATHER],
    }
    found = read_conversation(tmp_path, row(call, result))
    assert found == read_conversation(tmp_path, openai)
    assert found.supervised == [False, False, True, False, False]


def test_valued_parts_join_into_one_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "value": "Yes"}, {"type": "text", "value": ", 7 is."}]
    found = read_conversation(
        tmp_path, {"messages": [text("user", "Prime?", 0), {"role": "assistant", "content": parts}]}
    )
    assert found.messages[1]["content"] == "Yes, 7 is."


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "value": "a.jpg"}, "messages[0].content[0] must be"),
        ({"type": "text", "value": 3}, "messages[0].content[0].value must be text"),
        ({"type": "text"}, "messages[0].content[0].text must be text"),
        ({"type": "reasoning"}, "messages[0].content[0].reasoning must be text"),
        ({"type": "tool_call", "value": "weather(Ulm)"}, "messages[0].content[0].value is not JSON"),
        ({"type": "tool_call", "value": 3}, "messages[0].content[0].value"),
        ({"type": "tool_call"}, "messages[0].content[0].value"),
        ("hi", "messages[0].content[0] must be"),
    ],
)
def test_part_that_cannot_be_read_is_refused(tmp_path: Path, part: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, {"messages": [{"role": "assistant", "content": [part]}]})


@pytest.mark.parametrize(("kind", "name"), [("reasoning", "reasoning_content"), ("tool_call", "tool_calls")])
def test_question_neither_thinks_nor_calls(tmp_path: Path, kind: str, name: str) -> None:
    value = json.dumps(CALL)
    question = {"role": "user", "content": [{"type": kind, "value": value}]}
    message = refusal_of_row(tmp_path, {"messages": [question, text("assistant", "Sunny.", 1)]})
    assert f"messages[0].{name} belong" in message
