import typing
from pathlib import Path
from typing import Any

import pytest

from contract.dataset_format import DatasetField, DatasetFormat
from dataset.formats.detect import FORMATS, detect
from tests.dataset.example_files import refusal, refusal_of_row, write_lines


def test_recipe_schema_names_every_format_and_field() -> None:
    assert set(typing.get_args(DatasetFormat)) == set(FORMATS)
    assert set(typing.get_args(DatasetField)) == {field for format in FORMATS.values() for field in format.fields}


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": 1, "text": 1}, "messages"),
        ({"messages": 1, "prompt": 1, "chosen": 1, "rejected": 1}, "preference"),
        ({"prompt": 1, "completion": 1, "chosen": "", "rejected": None}, "prompt_completion"),
        ({"conversations": 1, "tools": 1}, "sharegpt"),
        ({"instruction": 1, "instances": 1}, "self_instruct"),
        ({"instruction": 1, "input": 1, "output": 1}, "alpaca"),
        ({"prompt": 1, "completion": 1}, "prompt_completion"),
        ({"input": 1, "target": 1}, "belle"),
        ({"input": [1], "output": [1]}, "chinese_vicuna"),
        ({"text": 1}, "text"),
    ],
)
def test_format_is_told_by_the_fields(row: dict[str, Any], format: str) -> None:
    assert detect(row) == format


def test_first_row_speaks_for_all(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}, {"text": "c"}]
    assert refusal(write_lines(tmp_path, rows)).startswith("row 2: instruction is empty")


@pytest.mark.parametrize("row", [{"question": "a"}, {}, {"\ud800": "a"}])
def test_unknown_fields_are_told(tmp_path: Path, row: Any) -> None:
    assert "of no known format" in refusal_of_row(tmp_path, row)


def test_rows_within_one_object_are_refused_with_advice(tmp_path: Path) -> None:
    message = refusal_of_row(tmp_path, {"version": "1", "data": [{"instruction": "a", "output": "b"}]})
    assert "a list of objects, data" in message
    assert "jq -c '.\"data\"[]' FILE" in message


@pytest.mark.parametrize(
    ("turn", "field"),
    [({"role": "user", "content": "hi"}, "messages"), ({"from": "human", "value": "hi"}, "conversations")],
)
def test_turns_under_another_name_are_told_the_column(tmp_path: Path, turn: Any, field: str) -> None:
    assert f'dataset.columns {{"{field}": "chat"}}' in refusal_of_row(tmp_path, {"chat": [turn]})


def test_unknown_turns_are_refused_with_advice(tmp_path: Path) -> None:
    assert "a role and a content" in refusal_of_row(tmp_path, {"contents": [{"role": "user", "parts": []}]})


def test_column_without_a_value_tells_no_format() -> None:
    assert detect({"messages": None, "prompt": "a", "completion": "b"}) == "prompt_completion"
    assert detect({"messages": None}) == "messages"


def test_row_that_is_no_object_is_refused(tmp_path: Path) -> None:
    assert "must be a JSON object, not 3" in refusal_of_row(tmp_path, 3)
