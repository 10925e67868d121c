import json
from pathlib import Path

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation, PlainText
from dataset.reading import csv_rows
from tests.dataset.example_files import HELLO, WEATHER, refusal, write_csv


def write_bytes(folder: Path, content: bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content)
    return path


def texts(path: Path) -> list[str]:
    return [example.text for example in read_examples(DatasetFile(path=path)) if isinstance(example, PlainText)]


def test_header_names_the_cells_of_a_record(tmp_path: Path) -> None:
    (example,) = read_examples(
        DatasetFile(path=write_csv(tmp_path, ["id", "output", "instruction"], ["7", "hello", "Say hello."]))
    )
    assert isinstance(example, Conversation)
    assert [message["content"] for message in example.messages] == ["Say hello.", "hello"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_is_named(tmp_path: Path, separator: str) -> None:
    content = f"instruction{separator}output\na{separator}b\n".encode()
    assert "separated by" in refusal(write_bytes(tmp_path, content))


def test_quoted_cell_may_hold_commas_quotes_and_lines(tmp_path: Path) -> None:
    assert texts(write_bytes(tmp_path, b'text,id\r\n"a, ""b""\r\nc\n\nd",1\r\n')) == ['a, "b"\r\nc\n\nd']


def test_byte_order_mark_is_dropped_from_headers_only(tmp_path: Path) -> None:
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}"
    assert texts(write_bytes(tmp_path, f'{mark}text\n"a\n{mark}b"\n'.encode())) == [f"a\n{mark}b"]


def test_long_cell_is_read(tmp_path: Path) -> None:
    assert texts(write_csv(tmp_path, ["text"], ["a" * 500_000])) == ["a" * 500_000]


def test_json_cells_are_parsed_for_lists(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path, ["messages", "tools"], [json.dumps(HELLO), json.dumps([WEATHER])], [json.dumps(HELLO), ""]
    )
    assert list(read_examples(DatasetFile(path=path))) == [
        Conversation(HELLO, [False, True], [WEATHER]),
        Conversation(HELLO, [False, True]),
    ]


def test_invalid_json_cell_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["messages"], [json.dumps(HELLO)], ["user: hi"])
    assert refusal(path).startswith("row 2: messages is not JSON")


def test_rows_are_counted_by_records_not_by_lines(tmp_path: Path) -> None:
    assert refusal(write_bytes(tmp_path, b'text\n"a\nb\nc"\n\nd\n" "\n')).startswith("row 3: text is empty")


def test_record_with_a_cell_too_many_is_named(tmp_path: Path) -> None:
    message = refusal(write_csv(tmp_path, ["instruction", "output"], ["a", "b"], ["a", "b", "c"]))
    assert message.startswith("row 2: has 3 cells, and the header 2")


def test_quotes_that_do_not_close_are_named(tmp_path: Path) -> None:
    assert refusal(write_bytes(tmp_path, b'text\na\n"b')).startswith("row 2: is not CSV")
    assert refusal(write_bytes(tmp_path, b'text\na\n"b"c\n')).startswith("row 2: is not CSV")


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    assert refusal(write_bytes(tmp_path, b"text\na\n\xff\n")).startswith("row 2: is not UTF-8")
    assert refusal(write_bytes(tmp_path, b"\xff\na\n")).startswith("the file has a header that is not UTF-8")


def test_length_of_a_record_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 20)
    assert texts(write_bytes(tmp_path, b"text\n" + b"123456789012345\n" * 5)) == ["123456789012345"] * 5
    assert refusal(write_bytes(tmp_path, b'text\na\n"1234567890\n1234567890"\n')).startswith("row 2: is longer than")


def test_header_names_are_stripped(tmp_path: Path) -> None:
    assert texts(write_bytes(tmp_path, b"id, text \n7, a\n")) == [" a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text,,\na,,\n", "remove the commas that end each line"),
        (b"sep=,\ntext\na\n", "a line for Excel; remove it"),
        (b"text\ra\rb\r", "end them in LF"),
        (b'text\n"a \\"b\\" c"\n', "write a quote within quotes twice"),
        (b"messages\n\"[{'role': 'user'}]\"\n", "json.dumps"),
    ],
)
def test_program_quirk_is_refused_with_advice(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(write_bytes(tmp_path, content))


def test_header_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    assert 'more than one column "text"' in refusal(write_csv(tmp_path, ["text", "text"], ["a", "b"]))
