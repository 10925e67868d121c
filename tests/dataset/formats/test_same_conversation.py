"""One conversation, written in every format and in every kind of file, gives one Conversation."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import ChatMessage, Conversation, ToolCall
from tests.dataset.example_files import WEATHER, read_conversation, write_csv, write_lines, write_parquet

SHORT: list[ChatMessage] = [{"role": "user", "content": "Is 7 prime?"}, {"role": "assistant", "content": "Yes, 你好."}]
LONG: list[ChatMessage] = [*SHORT, {"role": "user", "content": "And 8?"}, {"role": "assistant", "content": "No."}]
CALL: ToolCall = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
CALLING: list[ChatMessage] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How is Ulm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."},
]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": SHORT},
        {"conversations": [{"from": "human", "value": "Is 7 prime?"}, {"from": "gpt", "value": "Yes, 你好."}]},
        {"instruction": "Is 7 prime?", "output": "Yes, 你好."},
        {"instruction": "Is 7 prime?", "instances": [{"input": "", "output": "Yes, 你好."}]},
        {"input": "Is 7 prime?", "target": "Yes, 你好."},
        {"input": ["Is 7 prime?"], "output": ["Yes, 你好."]},
        {"prompt": "Is 7 prime?", "completion": "Yes, 你好."},
        {"prompt": SHORT[:1], "completion": SHORT[1:]},
    ],
    ids=lambda row: "-".join(row),
)
def test_question_and_its_answer(tmp_path: Path, row: Any) -> None:
    expected = [Conversation(SHORT, [False, True])]
    assert list(read_examples(DatasetFile(path=write_lines(tmp_path, [row])))) == expected
    assert list(read_examples(DatasetFile(path=write_parquet(tmp_path, [row])))) == expected
    (tmp_path / "rows.json").write_text(json.dumps([row], indent=2))
    assert list(read_examples(DatasetFile(path=tmp_path / "rows.json"))) == expected


@pytest.mark.parametrize("row", [{"messages": SHORT}, {"instruction": "Is 7 prime?", "output": "Yes, 你好."}])
def test_in_csv_too(tmp_path: Path, row: dict[str, Any]) -> None:
    cells = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
    assert list(read_examples(DatasetFile(path=write_csv(tmp_path, list(row), cells)))) == [
        Conversation(SHORT, [False, True])
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": LONG},
        {"conversations": [{"from": message["role"], "value": message["content"]} for message in LONG]},
        {"instruction": "And 8?", "output": "No.", "history": [["Is 7 prime?", "Yes, 你好."]]},
        {"input": ["Is 7 prime?", "And 8?"], "output": ["Yes, 你好.", "No."]},
    ],
    ids=lambda row: "-".join(row),
)
def test_many_turns_read_the_same_in_each_format(tmp_path: Path, row: Any) -> None:
    assert read_conversation(tmp_path, row) == Conversation(LONG, [False, True, False, True])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CALLING, "tools": [WEATHER]},
        {
            "conversations": [
                {"from": "human", "value": "How is Ulm?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Ulm"}}'},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "Sunny."},
            ],
            "system": "Be brief.",
            "tools": json.dumps([WEATHER["function"]]),
        },
    ],
    ids=lambda row: "-".join(row),
)
def test_calls_read_the_same_in_each_format(tmp_path: Path, row: Any) -> None:
    expected = Conversation(CALLING, [False, False, True, False, True], [WEATHER])
    assert read_conversation(tmp_path, row) == expected
