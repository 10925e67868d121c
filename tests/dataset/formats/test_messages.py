from pathlib import Path
from typing import Any

import pytest

from dataset.example import Conversation
from tests.dataset.example_files import HELLO, WEATHER, read_conversation, refusal_of_row

CALLING = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "weather"}}]}


def test_messages_are_read_as_they_are(tmp_path: Path) -> None:
    assert read_conversation(tmp_path, {"messages": HELLO}) == Conversation(HELLO, [False, True])


def test_harmless_openai_fields_are_ignored(tmp_path: Path) -> None:
    spoken = [{**HELLO[0], "weight": 0, "id": 6}, {**HELLO[1], "weight": 1, "tool_calls": None, "refusal": None}]
    assert read_conversation(tmp_path, {"messages": spoken, "tools": []}) == Conversation(HELLO, [False, True])


def test_text_parts_join_and_developer_is_system(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Is 7 prime?"}, {"type": "text", "text": "And 8?"}]
    given = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}, HELLO[1]]
    assert read_conversation(tmp_path, {"messages": given}).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is 7 prime?\nAnd 8?"},
        HELLO[1],
    ]


def test_answer_of_weight_0_is_not_learned(tmp_path: Path) -> None:
    messages = [HELLO[0], {**HELLO[1], "weight": 0}, *HELLO]
    assert read_conversation(tmp_path, {"messages": messages}).supervised == [False, False, False, True]


def test_empty_answer_is_not_learned(tmp_path: Path) -> None:
    messages = [HELLO[0], {"role": "assistant", "content": " "}, *HELLO]
    assert read_conversation(tmp_path, {"messages": messages}).supervised == [False, False, False, True]


def test_call_is_learned_and_its_result_is_not(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "weather"}
    found = read_conversation(tmp_path, {"messages": [HELLO[0], CALLING, result, HELLO[1]], "tools": [WEATHER]})
    assert found.supervised == [False, True, False, True]
    assert found.messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {}}, "id": "c1"}],
    }
    assert found.messages[2] == result
    assert found.tools == [WEATHER]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 'messages[0].role is "robot"'),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 'messages[0].role is ["user"]'),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be text"),
        ({"messages": ["hi"]}, "messages[0] must be an object"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content must be text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            'messages[0].content[0] must be {"type"',
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text must be text"),
        ({"messages": HELLO[:1]}, "has no answer"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content is not whole text"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content has a NUL"),
        ({"messages": "\ud800"}, "messages is not JSON"),
        ({"messages": [HELLO[0], {**HELLO[1], "weight": 0.5}]}, "messages[1].weight is 0.5"),
        ({"messages": [HELLO[0], {**HELLO[1], "weight": 0}]}, "each has weight 0"),
        ({"messages": [HELLO[0], {**HELLO[1], "function_call": {"name": "f"}}]}, "give it as tool_calls"),
        ({"messages": HELLO, "functions": [{"name": "f"}]}, "give them as tools"),
        ({"messages": [{**HELLO[0], "tool_calls": CALLING["tool_calls"]}]}, "belong to an assistant"),
        (
            {"messages": [HELLO[0], {"role": "assistant", "tool_calls": [{}]}]},
            "messages[1].tool_calls[0] must be a call",
        ),
        ({"messages": HELLO, "tools": "[{"}, "tools is not JSON"),
        ({"messages": HELLO, "tools": {"name": "f"}}, "tools must be a list"),
        ({"messages": HELLO, "tools": [{"type": "web_search"}]}, "tools[0] must be"),
        ({"messages": HELLO, "tools": [{"name": "f", "parameters": {"default": float("nan")}}]}, "tools[0] has nan"),
        ({"messages": HELLO, "tools": [{"name": "f", "description": "\ud800"}]}, "tools[0] is not whole text"),
        ({"messages": HELLO, "tools": [{"name": "f", "\ud800": 1}]}, "tools[0] is not whole text"),
    ],
)
def test_bad_row_is_told_its_fault(tmp_path: Path, row: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, row)


@pytest.mark.parametrize("arguments", ["{", "3", [1], {"a": "\0"}])
def test_arguments_that_are_no_object_are_refused(tmp_path: Path, arguments: Any) -> None:
    calls = [{"function": {"name": "f", "arguments": arguments}}]
    message = refusal_of_row(tmp_path, {"messages": [{"role": "assistant", "tool_calls": calls}]})
    assert "messages[0].tool_calls[0].arguments" in message


def test_tool_nested_too_deep_is_refused(tmp_path: Path) -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"properties": deep}
    row = {"messages": HELLO, "tools": [{"name": "f", "parameters": deep}]}
    assert "tools[0] is nested too deep" in refusal_of_row(tmp_path, row)


def test_turns_of_sharegpt_are_told_their_format(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    message = refusal_of_row(tmp_path, {"messages": turns})
    assert 'dataset.format "sharegpt" and dataset.columns {"conversations": "messages"}' in message
    found = read_conversation(tmp_path, {"messages": turns}, "sharegpt", {"conversations": "messages"})
    assert found.messages == HELLO


@pytest.mark.parametrize("name", ["parameters", "input", "args"])
def test_arguments_under_another_name_are_refused(tmp_path: Path, name: str) -> None:
    for call in ({"name": "f", name: {"a": 1}}, {"type": "function", "function": {"name": "f", name: '{"a": 1}'}}):
        row = {"messages": [HELLO[0], {"role": "assistant", "tool_calls": [call]}]}
        assert f'messages[1].tool_calls[0] has "{name}" and no arguments' in refusal_of_row(tmp_path, row)
    full: dict[str, Any] = {"name": "f", "arguments": {"a": 1}, "id": "1", "index": 0, name: None}
    assert read_conversation(tmp_path, {"messages": [HELLO[0], {"role": "assistant", "tool_calls": [full]}]})


def test_tool_with_input_schema_is_refused(tmp_path: Path) -> None:
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    assert "tools[0].input_schema" in refusal_of_row(tmp_path, {"messages": HELLO, "tools": tools})


def test_part_with_two_texts_is_refused(tmp_path: Path) -> None:
    part = {"type": "text", "text": "hello", "value": "bye"}
    row = {"messages": [HELLO[0], {"role": "assistant", "content": [part]}]}
    assert "messages[1].content[0] has both value and text" in refusal_of_row(tmp_path, row)
    part["value"] = ""
    assert read_conversation(tmp_path, row).messages[1]["content"] == "hello"
    for empty in ({"type": "text", "value": ""}, {"type": "text", "text": ""}):
        row["messages"][1]["content"] = [part, empty]
        assert read_conversation(tmp_path, row).messages[1]["content"].strip() == "hello"
