import codecs
from pathlib import Path

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import PlainText
from tests.dataset.example_files import refusal

MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
FILES = {
    "rows.jsonl": '\r\n{"text": "%s"}\r\n',
    "rows.json": '[{"text": "%s"}]',
    "rows.csv": 'id,text\r\n1,"%s"\r\n',
    "rows.txt": "%s",
}
WORDS = "größer 七 \N{GRINNING FACE}"


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("name", FILES)
def test_each_encoding_is_read_with_and_without_marks(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    content = (FILES[name] % WORDS).encode(encoding)
    # Without a mark the first character, which is in ASCII but for a text's, tells.
    for start in (MARKS[encoding], b""):
        path.write_bytes(start + content)
        assert list(read_examples(DatasetFile(path=path))) == [PlainText(WORDS)]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_character_is_whole_wherever_the_file_is_parted(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    text = "x" + "\N{GRINNING FACE}" * 100_000
    path.write_bytes(f'{{"text": "{text}"}}'.encode(encoding))
    assert list(read_examples(DatasetFile(path=path))) == [PlainText(text)]


@pytest.mark.parametrize(
    ("encoding", "byte"), [("latin-1", "0xfc"), ("windows-1252", "0xfc"), ("shift-jis", "0x8e"), ("gbk", "0xc6")]
)
def test_other_encodings_are_named_by_first_byte(tmp_path: Path, encoding: str, byte: str) -> None:
    word = "ü" if byte == "0xfc" else "七"
    for name, content in (
        ("rows.jsonl", f'{{"text": "{word}"}}\n'),
        ("rows.json", f'[{{"text": "{word}"}}]\n'),
        ("rows.csv", f"text\nab{word}\n"),
        ("rows.txt", f"ab{word}"),
    ):
        (tmp_path / name).write_bytes(content.encode(encoding))
        message = refusal(tmp_path / name)
        place = content.splitlines()[-1].index(word)
        assert f"is not UTF-8: byte {byte} at position {place}" in message
        assert "iconv -f" in message


def test_torn_utf16_is_named_by_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    content = '{"text": "a"}\n'.encode("utf-16-le") * 5_000
    path.write_bytes(codecs.BOM_UTF16_LE + content + b"\x00\xdc" + content)
    assert f"byte 0x00 at position {2 + len(content)}" in refusal(path)
