import json
from pathlib import Path

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from tests.dataset.example_files import HELLO, refusal, write_lines

ROW = json.dumps({"messages": HELLO}) + "\n"


def test_json_array_is_read_like_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3, indent=1))
    assert len(list(read_examples(DatasetFile(path=path)))) == 3


def test_row_57_without_an_answer_is_named(tmp_path: Path) -> None:
    rows = [{"messages": HELLO}] * 60
    rows[56] = {"messages": HELLO[:1]}
    assert refusal(write_lines(tmp_path, rows)).startswith("row 57: has no answer")


def test_each_example_knows_its_row(tmp_path: Path) -> None:
    examples = read_examples(DatasetFile(path=write_lines(tmp_path, [{"text": "a"}, {"text": "b"}])))
    assert [example.where for example in examples] == ["row 1", "row 2"]


def test_row_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW + "{broken\n")
    assert refusal(path).startswith("row 2: is not JSON")


def test_non_utf8_bytes_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "\xff\xfe", "output": "b"}\n')
    assert refusal(path).startswith("row 1: is not UTF-8")


def test_blank_lines_keep_later_row_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n" + ROW + "\n{}\n")
    assert refusal(path).startswith("row 2")


def test_row_nested_too_deep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000 + "\n")
    assert "nested too deep" in refusal(path)


def test_overlong_number_is_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": ' + "1" * 5_000 + "}\n")
    assert "row 1: has a number of too many digits" in refusal(path)


@pytest.mark.parametrize("text", ["[{}", "[{},]", '[{"instruction": "a", "output": "b"} 3]', "[] []", "[1]x", "["])
def test_array_that_is_not_whole_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    refusal(path)


def test_broken_row_of_an_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 2)[:-1] + ", {broken}]")
    assert refusal(path).startswith("row 3: is not JSON")


def test_missing_comma_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a"}, {"text": "b"} {"text": "c"}]')
    assert refusal(path).startswith("row 2: is followed by neither a comma")


def test_byte_order_mark_is_no_row_content(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([{"text": "a"}]).encode())
    assert len(list(read_examples(DatasetFile(path=path)))) == 1


def test_repeated_key_in_a_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a", "output": "b", "output": "c"}\n')
    assert refusal(path).startswith('row 2: cannot be read: the key "output" is given more than once in one object')
    path.write_text('[{"messages": [{"role": "user", "content": "a", "content": "b"}]}]')
    assert 'the key "content" is given more than once' in refusal(path)
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1, "a": 2}}'}
    rows = [{"conversations": [{"from": "human", "value": "q"}, call]}]
    assert 'conversations[1].value cannot be read: the key "a"' in refusal(write_lines(tmp_path, rows))
