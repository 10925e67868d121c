import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.dataset_file import DatasetFile
from dataset.dataset_report import DatasetReport, check_file


def talk(question: str, answer: str, *more: dict[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}, *more]}


def of(path: Path, *lines: Any) -> DatasetReport:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return check_file(DatasetFile(path=path))


def test_good_file_is_counted(tmp_path: Path) -> None:
    found = of(tmp_path / "rows.jsonl", talk("hi", "hello"), talk("ho", "hey", {"role": "user", "content": "?"}))
    assert (found.format, found.rows, found.examples, found.messages) == ("messages", 2, 2, 5)
    assert (found.bad_rows, found.error_count, found.errors, found.duplicates) == (0, 0, [], 0)
    assert found.longest_characters == len("hihello")


def test_check_names_each_bad_row_and_continues(tmp_path: Path) -> None:
    found = of(
        tmp_path / "rows.jsonl",
        b"{",
        talk("hi", "hello"),
        b'{"messages": "\xff"}',
        talk("hi", "\0"),
        b"[" * 100_000,
        talk("bye", "bye"),
    )
    assert (found.rows, found.examples, found.bad_rows, found.error_count) == (6, 2, 4, 4)
    words = {problem.row: problem.message for problem in found.errors}
    assert list(words) == [1, 3, 4, 5]
    assert "not JSON" in words[1]
    assert "not UTF-8" in words[3]
    assert "NUL" in words[4]
    assert "nested too deep" in words[5]


def test_first_hundred_errors_are_listed_and_all_counted(tmp_path: Path) -> None:
    found = of(tmp_path / "rows.jsonl", talk("hi", "hello"), *[{"messages": []}] * 250)
    assert (found.error_count, found.bad_rows, len(found.errors), found.errors[-1].row) == (250, 250, 100, 101)


def test_csv_records_with_other_cells_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\na,b\nc\nd,e\nf,"g"h\ni,j\n')
    found = check_file(DatasetFile(path=path))
    assert (found.rows, found.examples) == (4, 2)
    assert [problem.row for problem in found.errors] == [2, 4]


def test_array_and_torn_archive_end_where_they_break(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f"[{json.dumps(talk('a', 'b'))}, {json.dumps(talk('c', 'd'))}, {{]")
    assert [problem.row for problem in check_file(DatasetFile(path=path)).errors] == [3]
    packed = gzip.compress(b"".join(json.dumps(talk(str(n), "b")).encode() + b"\n" for n in range(10_000)))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    found = check_file(DatasetFile(path=path))
    assert found.examples > 100
    assert [(each.row, each.message[:37]) for each in found.errors] == [(None, "the file is not a complete gzip file:")]


def test_oversized_content_is_not_unpacked_further(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(64):
            file.write(b" " * (1 << 20))
    found = check_file(DatasetFile(path=path), max_bytes=1 << 20)
    assert found.errors[0].message.startswith("the file unpacks to more than 1048576 bytes")


def test_parquet_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a", "", "c"], "completion": ["b", "d", "e"]}), path)
    found = check_file(DatasetFile(path=path))
    assert (found.format, found.rows, [problem.row for problem in found.errors]) == ("prompt_completion", 3, [2])


def test_repeated_examples_are_counted_despite_white_space(tmp_path: Path) -> None:
    found = of(
        tmp_path / "rows.jsonl", talk("hi", "hello"), talk(" hi ", "hello\n"), talk("hi", "Hello"), talk("hi", "hello")
    )
    assert (found.examples, found.duplicates, found.duplicate_rows) == (4, 2, [2, 4])


def test_empty_rows_and_answers_are_counted_apart(tmp_path: Path) -> None:
    empty = {"role": "assistant", "content": " "}
    found = of(tmp_path / "rows.jsonl", talk("hi", "hello", empty), talk("hi", ""), {"messages": []})
    assert (found.examples, found.empty_answers, found.without_answer, found.bad_rows) == (1, 1, 1, 2)


def test_file_without_rows_is_told(tmp_path: Path) -> None:
    assert [(each.row, each.message) for each in of(tmp_path / "rows.jsonl").errors] == [
        (None, "the file has no rows; give at least one")
    ]


def test_csv_is_recognised_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / ("0" * 64)
    path.write_text("prompt,completion\na,b\n")
    assert (
        check_file(DatasetFile(path=path)).examples == check_file(DatasetFile(path=path, name="faq.csv")).examples == 1
    )
    path.write_text(json.dumps(talk("a", "b")))
    assert check_file(DatasetFile(path=path)).examples == 1
    assert "begins as JSON does" in check_file(DatasetFile(path=path, name="faq.csv")).errors[0].message
