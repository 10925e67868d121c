"""A plain text file is one document, in pieces of which none is lost."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.dataset_report import check_file
from dataset.example import PlainText
from dataset.limits import TEXT_PIECE_BYTES
from tests.dataset.example_files import failure, refusal

SPACE = ["\n", "\n\n", " \n \n", "\r\n", "\r", "\t"]
WORD = st.sampled_from(["seven ", "prime.", "七是质数。", "x" * 999, "😀" * 300, *SPACE])


def read(path: Path, content: str) -> list[PlainText]:
    path.write_bytes(content.encode())
    return [example for example in read_examples(DatasetFile(path=path)) if isinstance(example, PlainText)]


@given(st.lists(WORD, min_size=1, max_size=60).map(lambda words: "a" + "".join(words)))
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=50)
def test_pieces_are_the_text(tmp_path: Path, text: str) -> None:
    pieces = read(tmp_path / "book.txt", text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(piece.text for piece in pieces).rstrip() == lines.rstrip()
    assert all(len(piece.text.encode()) <= TEXT_PIECE_BYTES for piece in pieces)
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_text_splits_at_paragraphs_lines_sentences_words(tmp_path: Path) -> None:
    for end in ("\n\n", "\n", ". ", " "):
        text = ("a" * 90 + end) * 100
        pieces = read(tmp_path / "book.md", text)
        assert len(pieces) > 4
        assert all(piece.text.endswith(end) for piece in pieces)


@pytest.mark.parametrize("content", ["", "\n \n", " " * 9_000])
def test_blank_file_has_no_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "book.txt").write_text(content)
    assert "has no rows" in refusal(tmp_path / "book.txt")


@pytest.mark.parametrize("text", ["[A link](https://example.org) and more", "{curly}", "[1, 2] is a list", "text\na,b"])
def test_text_may_begin_with_a_bracket_or_table(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "book.md", text) == [PlainText(text)]


@pytest.mark.parametrize("content", ['{"text": "a"}\n', '[{"text": "a"}]', ' [\n {"text": "a"}]'])
def test_rows_of_json_are_read_whatever_the_name(tmp_path: Path, content: str) -> None:
    assert read(tmp_path / "rows.txt", content) == [PlainText("a")]


def test_nul_is_named_by_its_piece(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a" * 3_000 + "\0")
    assert [problem.row for problem in check_file(DatasetFile(path=tmp_path / "book.txt", name="book.txt")).errors] == [
        2
    ]


def test_text_has_no_other_format_and_no_columns(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("Once.")
    assert check_file(DatasetFile(path=tmp_path / "book.txt", name="book.txt", format="text")).format == "text"
    assert "not alpaca" in refusal(tmp_path / "book.txt", "alpaca")
    assert failure(tmp_path / "book.txt", "auto", {"text": "a"}).param == "dataset.columns"
