from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation
from tests.dataset.example_files import read_conversation, refusal, refusal_of_row, write_lines


def contents(found: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in found.messages]


def test_alpaca_becomes_a_conversation(tmp_path: Path) -> None:
    row = {"instruction": "Translate", "input": "hi", "output": "hallo", "system": "Be brief."}
    found = read_conversation(tmp_path, row)
    assert contents(found) == [("system", "Be brief."), ("user", "Translate\n\nhi"), ("assistant", "hallo")]
    assert found.supervised == [False, False, True]


def test_answers_of_the_history_are_learned_too(tmp_path: Path) -> None:
    found = read_conversation(tmp_path, {"instruction": "c", "output": "d", "history": [["a", "b"]]})
    assert contents(found) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert found.supervised == [False, True, False, True]


@pytest.mark.parametrize("history", [None, [], ""])
def test_there_may_be_no_history(tmp_path: Path, history: Any) -> None:
    assert len(read_conversation(tmp_path, {"instruction": "c", "output": "d", "history": history}).messages) == 2


def test_each_instance_of_self_instruct_is_an_example(tmp_path: Path) -> None:
    row = {"instruction": "Double", "instances": [{"input": "1", "output": "2"}, {"input": "", "output": "4"}]}
    first, second = read_examples(DatasetFile(path=write_lines(tmp_path, [row])))
    assert isinstance(first, Conversation)
    assert contents(first) == [("user", "Double\n\n1"), ("assistant", "2")]
    assert (first.where, second.where) == ("row 1, instance 1", "row 1, instance 2")


def test_bad_instance_is_named_with_its_row(tmp_path: Path) -> None:
    good = {"instruction": "Double", "instances": [{"input": "1", "output": "2"}]}
    bad = {"instruction": "Double", "instances": [*good["instances"], {"input": "2", "output": " "}]}
    assert refusal(write_lines(tmp_path, [good, bad])).startswith("row 2: instance 2: has no answer")


def test_belle_is_a_pair_or_a_conversation(tmp_path: Path) -> None:
    pair = read_conversation(tmp_path, {"input": "你好", "target": "您好"})
    talk = [{"from": "human", "value": "你好"}, {"from": "assistant", "value": "您好"}]
    assert pair == read_conversation(tmp_path, {"conversations": talk}, "belle")


def test_chinese_vicuna_has_an_answer_for_each_question(tmp_path: Path) -> None:
    found = read_conversation(tmp_path, {"input": ["a", "c"], "output": ["b", "d"]})
    assert contents(found) == [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert found.supervised == [False, True, False, True]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "a", "output": " "}, "has no answer: output is empty"),
        ({"instruction": "a", "reply": "b"}, "no output in instruction, reply; dataset.columns"),
        ({"instruction": "", "output": "b"}, "instruction is empty"),
        ({"instruction": "a", "output": "b\udfff"}, "output is not whole text"),
        ({"instruction": "a\0", "output": "b"}, "instruction has a NUL"),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, "history[0] must be a list of a question"),
        ({"instruction": "a", "output": "b", "history": [["q", 3]]}, "history[0][1] must be text"),
        ({"instruction": "a", "output": "b", "history": "q"}, "history is not JSON"),
        ({"instruction": "a", "output": "b", "history": 3}, "history must be a list"),
        ({"instruction": "a", "instances": []}, "instances must be a list of at least one instance"),
        ({"instruction": "a", "instances": [3]}, "instance 1: must be an object"),
        ({"input": " ", "target": "b"}, "input is empty"),
        ({"input": "a", "target": None}, "has no answer: target is empty"),
        ({"input": ["a", "b"], "output": ["c"]}, "input has 2 texts and output 1"),
        ({"input": ["a"], "output": [None]}, "output[0] must be text"),
        ({"input": ["a"], "output": [""]}, "has no answer"),
        ({"input": [], "output": []}, "input must be a list of at least one text"),
    ],
)
def test_bad_row_is_told_its_fault(tmp_path: Path, row: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, row)
