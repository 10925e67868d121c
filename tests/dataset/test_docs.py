"""Every row that docs/data.md shows is read, and what it says is learned of it is."""

import re
from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Example, PlainText, conversations_of
from dataset.formats.detect import FORMATS
from dataset.formats.kinds import PAIR_FIELDS
from dataset.formats.known_fields import BESIDE_MESSAGES, IN_ANY_ROW, ROW_THOUGHTS, SETTINGS, TOOL_CHOICES
from dataset.formats.turns import TURN_FIELDS, WEIGHTS

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/data.md").read_text()
TABLE = re.findall(r"^\| `(\w+)` \| `({.*?})` \| (.*?) \| .* \|$", DOCS, re.MULTILINE)
EXAMPLES = re.findall(r'^    ({"(?:messages|conversations)".*)$', DOCS, re.MULTILINE)
THOUGHTS, TOOLS = EXAMPLES[:2], EXAMPLES[2:]
MESSAGE_FIELDS, ROW_FIELDS = (
    {name for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)}
    for table in DOCS.partition("| Field of a message")[2].partition("## Thoughts")[0].split("| Field of a row")
)


def learned(example: Example) -> list[str]:
    if isinstance(example, PlainText):
        return [example.text]
    return [
        message["content"]
        for each in conversations_of(example)
        for message, supervised in zip(each.messages, each.supervised, strict=True)
        if supervised
    ]


@pytest.mark.parametrize(("format", "row", "words"), TABLE)
def test_documented_row_has_its_format_and_labels(tmp_path: Path, format: Any, row: str, words: str) -> None:
    (tmp_path / "row").write_text(row)
    examples = list(read_examples(DatasetFile(path=tmp_path / "row", format=format)))
    assert examples == list(read_examples(DatasetFile(path=tmp_path / "row")))
    assert [text for example in examples for text in learned(example)] == re.findall("`(.*?)`", words)


def test_documented_formats_are_in_detection_order() -> None:
    assert list(dict.fromkeys(format for format, _, _ in TABLE)) == list(FORMATS)


def test_tables_name_every_known_field_and_no_other() -> None:
    text = {"role", "content", "from", "value"}
    assert TURN_FIELDS - text == MESSAGE_FIELDS
    beside = {"system", "tools", "history", "label", "kto_tag", "parallel_tool_calls", "chat_template_kwargs"}
    refused = {*IN_ANY_ROW, *SETTINGS, *BESIDE_MESSAGES, *TOOL_CHOICES}
    assert {*refused, *PAIR_FIELDS, *ROW_THOUGHTS, *WEIGHTS, *beside} == ROW_FIELDS


@pytest.mark.parametrize(("first", "second"), [THOUGHTS, TOOLS])
def test_both_spellings_of_thoughts_are_equal(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "first").write_text(first)
    (tmp_path / "second").write_text(second)
    assert list(read_examples(DatasetFile(path=tmp_path / "first"))) == list(
        read_examples(DatasetFile(path=tmp_path / "second"))
    )


@pytest.mark.parametrize("path", sorted((ROOT / "examples/data").iterdir()), ids=lambda path: path.name)
def test_files_among_the_examples_are_read(path: Path) -> None:
    columns: Any = {"instruction": "question", "output": "answer"} if path.suffix == ".csv" else None
    assert list(read_examples(DatasetFile(path=path, columns=columns)))
