"""Files in the very shapes in which people publish theirs, to the fields that nobody needs and the last line's end: as
Alpaca's, BELLE's and Self-Instruct's seed tasks, Chinese-Vicuna's chats and instructions, tool calls in ShareGPT's."""

from pathlib import Path

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation

SHAPES = Path(__file__).parent / "real_shapes"

LEARNED = {
    "alpaca.json": [
        ["The holly does:\n\n1. its leaves are hard;\n2. they stay for years."],
        ["apple, pear, plum"],
    ],
    "belle_seed_tasks.jsonl": [["小河弯弯向东流，\n两岸青青绿满洲。"], ["苹果。"]],
    "self_instruct_seed_tasks.jsonl": [["About nine minutes."], ["Yes, it is."]],
    "chinese_vicuna_chat.jsonl": [
        ["| 早餐 | 时间 |\n| --- | --- |\n| 煎蛋 | 5 分钟 |", "燕麦粥配水果。"],
        ["是的。"],
    ],
    "chinese_vicuna_instruct.jsonl": [["月亮绕着地球转。"], ["A: 你吃早饭了吗？\nB: 吃过了。"]],
    "tool_calls_sharegpt.json": [
        ["From where?", "find_train {'from': 'Bonn', 'stops': ['Ulm']}", "There is one at 9:14."],
        ["You are welcome."],
    ],
}


@pytest.mark.parametrize("name", LEARNED)
def test_published_file_shapes_are_read(name: str) -> None:
    examples = [
        example for example in read_examples(DatasetFile(path=SHAPES / name)) if isinstance(example, Conversation)
    ]
    assert [learned(example) for example in examples] == LEARNED[name]
    assert all(example.messages[0]["role"] == "user" for example in examples)


def test_each_shape_is_told_of() -> None:
    assert sorted(path.name for path in SHAPES.iterdir()) == sorted(LEARNED)


def test_tools_come_with_the_row_that_has_them() -> None:
    calling, plain = read_examples(DatasetFile(path=SHAPES / "tool_calls_sharegpt.json"))
    assert isinstance(calling, Conversation)
    assert isinstance(plain, Conversation)
    assert [tool["function"]["name"] for tool in calling.tools or []] == ["find_train"]
    assert plain.tools is None


def learned(example: Conversation) -> list[str]:
    """What the assistant says, and what it calls."""
    said = []
    for message, flag in zip(example.messages, example.supervised, strict=True):
        if flag:
            calls = [call["function"] for call in message.get("tool_calls", [])]
            said.append(message["content"] + "".join(f"{call['name']} {call['arguments']}" for call in calls))
    return said
