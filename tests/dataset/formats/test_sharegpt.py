import json
from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_report import check_file
from tests.dataset.example_files import WEATHER, read_conversation, refusal_of_row, write_lines

TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]


def call(value: Any) -> dict[str, Any]:
    return {"conversations": [TALK[0], {"from": "function_call", "value": json.dumps(value)}]}


@pytest.mark.parametrize(("human", "gpt"), [("human", "gpt"), ("human", "assistant"), ("user", "chatgpt")])
def test_speakers_go_by_many_names(tmp_path: Path, human: str, gpt: str) -> None:
    turns = [{"from": "system", "value": "Be brief."}, {"from": human, "value": "hi"}, {"from": gpt, "value": "hello"}]
    found = read_conversation(tmp_path, {"conversations": turns})
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant"]
    assert found.supervised == [False, False, True]


def test_system_beside_the_conversation_comes_first(tmp_path: Path) -> None:
    found = read_conversation(tmp_path, {"conversations": TALK, "system": "Be brief."})
    assert found.messages[0] == {"role": "system", "content": "Be brief."}


def test_function_call_and_observation_become_calls(tmp_path: Path) -> None:
    row = call({"name": "weather", "arguments": {"city": "Ulm"}})
    row["conversations"] += [{"from": "observation", "value": "sunny"}, TALK[1]]
    found = read_conversation(tmp_path, row)
    calls = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}]
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": calls}
    assert found.messages[2] == {"role": "tool", "content": "sunny"}
    assert found.supervised == [False, True, False, True]


def test_one_turn_may_call_many_functions(tmp_path: Path) -> None:
    found = read_conversation(tmp_path, call([{"name": "a"}, {"name": "b", "arguments": '{"x": 1}'}]))
    assert [c["function"] for c in found.messages[1]["tool_calls"]] == [
        {"name": "a", "arguments": {}},
        {"name": "b", "arguments": {"x": 1}},
    ]


@pytest.mark.parametrize(
    "tools",
    [
        [WEATHER],
        [WEATHER["function"]],
        [{"type": "function", **WEATHER["function"]}],
        json.dumps([WEATHER["function"]]),
    ],
)
def test_tools_are_a_list_or_its_json_text(tmp_path: Path, tools: Any) -> None:
    assert read_conversation(tmp_path, {"conversations": TALK, "tools": tools}).tools == [WEATHER]


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_there_may_be_no_tools(tmp_path: Path, tools: Any) -> None:
    assert read_conversation(tmp_path, {"conversations": TALK, "tools": tools}).tools is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"conversations": "hi"}, "conversations is not JSON"),
        ({"conversations": {}}, "conversations must be a list of at least one turn"),
        ({"conversations": ["hi"]}, "conversations[0] must be an object with from and value"),
        ({"conversations": [{"from": "alien", "value": "hi"}]}, 'conversations[0].from is "alien"'),
        ({"conversations": [{"from": [], "value": "hi"}]}, "conversations[0].from is []"),
        ({"conversations": [{"from": "human"}]}, "conversations[0].value must be text, not null"),
        ({"conversations": [{"role": "user", "content": "hi"}]}, '{"messages": "conversations"}'),
        ({"conversations": TALK[:1]}, "has no answer"),
        ({"conversations": [{"from": "function_call", "value": "weather(Ulm)"}]}, "conversations[0].value is not JSON"),
        (call({"arguments": {}}), "conversations[1].value must be a call"),
        (call([]), "conversations[1].value must be a list of at least one call"),
        (call({"name": "a", "arguments": 3}), "conversations[1].value.arguments must be a JSON object"),
    ],
)
def test_bad_row_is_told_its_fault(tmp_path: Path, row: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, row)


def test_short_turns_are_questions_and_answers(tmp_path: Path) -> None:
    expected = read_conversation(tmp_path, {"conversations": [*TALK, *TALK]})
    for names in (("input", "output"), ("human", "assistant")):
        pair = dict(zip(names, ("hi", "hello"), strict=True))
        assert read_conversation(tmp_path, {"conversations": [pair, pair]}) == expected
    assert read_conversation(tmp_path, {"conversations": ["hi", "hello"] * 2}) == expected
    unanswered = read_conversation(tmp_path, {"conversations": ["hi", "hello", "hi"]})
    assert unanswered.supervised == [False, True, False]


def test_pair_says_whether_its_answer_is_learned(tmp_path: Path) -> None:
    pairs = [{"input": "hi", "output": "hello", "output_with_loss": learned} for learned in (False, True)]
    assert read_conversation(tmp_path, {"conversations": pairs}).supervised == [False, False, False, True]
    refused = {"input": "hi", "output": "hello", "label": 1}
    assert "conversations[0].output.label is 1" in refusal_of_row(tmp_path, {"conversations": [refused]})
    path = write_lines(tmp_path, [{"conversations": [{"input": "hi", "output": "hello", "score": 3}]}])
    assert check_file(DatasetFile(path=path)).unused_fields == {"conversations[].score": 1}


@pytest.mark.parametrize("turns", [["hi", 3], ["hi"], [["hi", "hello"]]])
def test_other_short_turns_are_refused(tmp_path: Path, turns: Any) -> None:
    assert "must be an object with from and value" in refusal_of_row(tmp_path, {"conversations": turns})
