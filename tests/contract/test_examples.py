import json
from pathlib import Path

import pytest

from contract.examples import read_examples
from contract.failure import FailureReason, InputError

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def write(folder: Path, rows: list[object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read_examples(path, "auto"))
    assert caught.value.failure.reason == FailureReason.DATASET_INVALID
    return caught.value.failure.message


def test_messages_are_read_as_they_are(tmp_path: Path) -> None:
    assert list(read_examples(write(tmp_path, [{"messages": HELLO}]), "auto")) == [HELLO]


def test_alpaca_becomes_a_conversation(tmp_path: Path) -> None:
    row = {"instruction": "Translate", "input": "hi", "output": "hallo", "system": "Be brief."}
    (conversation,) = read_examples(write(tmp_path, [row]), "auto")
    assert [message["role"] for message in conversation] == ["system", "user", "assistant"]
    assert conversation[1]["content"] == "Translate\n\nhi"
    assert conversation[2]["content"] == "hallo"


def test_a_json_array_is_read_like_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3, indent=1))
    assert len(list(read_examples(path, "auto"))) == 3


def test_row_57_without_an_answer_is_named(tmp_path: Path) -> None:
    rows: list[object] = [{"messages": HELLO}] * 60
    rows[56] = {"messages": HELLO[:1]}
    assert refusal(write(tmp_path, rows)).startswith("row 57: has no answer")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 'messages[0].role is "robot"'),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be text"),
        ({"instruction": "a", "output": " "}, "has no answer"),
        ({"instruction": "", "output": "b"}, "instruction is empty"),
        ({"question": "a"}, "question"),
        ([1, 2], "must be a JSON object"),
    ],
)
def test_a_bad_row_is_told_its_number_and_its_fault(tmp_path: Path, row: object, words: str) -> None:
    message = refusal(write(tmp_path, [row]))
    assert message.startswith("row 1")
    assert words in message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "no rows" in refusal(write(tmp_path, []))


def test_a_row_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": HELLO}) + "\n{broken\n")
    assert refusal(path).startswith("row 2: is not JSON")


def test_bytes_that_are_not_utf8_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "\xff\xfe", "output": "b"}\n')
    assert refusal(path).startswith("row 1: is not UTF-8")


def test_blank_lines_do_not_count_but_later_rows_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n" + json.dumps({"messages": HELLO}) + "\n\n{}\n")
    assert refusal(path).startswith("row 2")


def test_a_row_nested_too_deep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000 + "\n")
    assert "nested too deep" in refusal(path)
