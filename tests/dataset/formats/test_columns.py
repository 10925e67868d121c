from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation
from tests.dataset.example_files import HELLO, failure, read_conversation, write_csv, write_lines

HELLO_HELLO = Conversation(HELLO, [False, True])


@pytest.mark.parametrize("format", ["auto", "alpaca"])
def test_columns_give_a_file_our_names(tmp_path: Path, format: Any) -> None:
    columns = {"instruction": "question", "output": "answer"}
    assert read_conversation(tmp_path, {"question": "hi", "answer": "hello"}, format, columns) == HELLO_HELLO


def test_they_may_swap_two_names(tmp_path: Path) -> None:
    columns = {"prompt": "completion", "completion": "prompt"}
    assert read_conversation(tmp_path, {"prompt": "hello", "completion": "hi"}, "auto", columns) == HELLO_HELLO


def test_mapped_column_hides_its_namesake(tmp_path: Path) -> None:
    row = {"instruction": "x", "question": "hi", "output": "hello"}
    assert read_conversation(tmp_path, row, "auto", {"instruction": "question"}) == HELLO_HELLO


def test_mapped_column_fills_no_other_field(tmp_path: Path) -> None:
    row = {"input": "hi", "output": "hello"}
    assert read_conversation(tmp_path, row, "auto", {"instruction": "input"}) == HELLO_HELLO


def test_format_is_one_that_has_the_named_fields(tmp_path: Path) -> None:
    row = {"messages": 3, "q": "hi", "a": "hello"}
    assert read_conversation(tmp_path, row, "auto", {"prompt": "q", "completion": "a"}) == HELLO_HELLO


def test_row_may_lack_a_column_that_another_has(tmp_path: Path) -> None:
    row = {"instruction": "hi", "output": "hello"}
    path = write_lines(tmp_path, [row, {**row, "context": "now"}])
    first, second = read_examples(DatasetFile(path=path, columns={"input": "context"}))
    assert first == HELLO_HELLO
    assert isinstance(second, Conversation)
    assert second.messages[0]["content"] == "hi\n\nnow"


def test_missing_column_is_refused_with_alternatives(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["instruction", "output", "context"], ["a", "b", "c"])
    fault = failure(path, "auto", {"input": "contxt"})
    assert fault.param == "dataset.columns"
    assert 'no column "contxt"' in fault.message
    assert "instruction, output, context" in fault.message


def test_wrong_column_is_reported_before_its_consequences(tmp_path: Path) -> None:
    fault = failure(write_lines(tmp_path, [{"q": "a", "a": "b"}]), "alpaca", {"instruction": "question", "output": "a"})
    assert fault.param == "dataset.columns"
    assert 'no column "question"' in fault.message


@pytest.mark.parametrize("format", ["auto", "messages"])
def test_field_outside_the_format_is_refused(tmp_path: Path, format: Any) -> None:
    fault = failure(write_lines(tmp_path, [{"messages": HELLO, "h": []}]), format, {"history": "h"})
    assert fault.param == "dataset.columns"
    assert 'read as messages, which has no field "history"' in fault.message
    assert "it has messages, system, tools" in fault.message


def test_column_error_names_the_field_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"question": "hi", "answer": 4}])
    message = failure(path).message
    assert message == 'row 1: output must be text, not 4; write it as text, as "4"; output is the column answer'
    path = write_csv(tmp_path, ["q", "a"], ["hi", ""])
    message = failure(path, "auto", {"instruction": "q", "output": "a"}).message
    assert message == "row 1: has no answer: output is empty; output is the column a"
