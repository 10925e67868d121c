import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from contract.failure import InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation, PlainText
from dataset.reading import parquet_rows
from tests.dataset.example_files import HELLO, WEATHER, refusal, write_parquet

CALL = [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}]


def test_nested_columns_are_read_with_nulls_missing(tmp_path: Path) -> None:
    rows = [{"messages": HELLO}, {"messages": [HELLO[0], {"role": "assistant", "content": None, "tool_calls": CALL}]}]
    first, second = read_examples(DatasetFile(path=write_parquet(tmp_path, rows)))
    assert first == Conversation(HELLO, [False, True])
    assert isinstance(second, Conversation)
    assert second.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Ulm"}}


COUNT_THREADS = """
import os, sys
import pyarrow.parquet
from dataset.reading.parquet_rows import parquet_rows
before = os.listdir("/proc/self/task")
with open(sys.argv[1], "rb", buffering=0) as file:
    assert next(parquet_rows(file, None)) == {"text": "a"}
    assert os.listdir("/proc/self/task") == before
"""


def test_reading_starts_no_thread(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [{"text": "a"}] * 500, row_group_size=100)
    subprocess.run([sys.executable, "-c", COUNT_THREADS, path], check=True)


def test_list_may_be_given_as_its_json_text(tmp_path: Path) -> None:
    row = {"messages": json.dumps(HELLO), "tools": json.dumps([WEATHER])}
    assert list(read_examples(DatasetFile(path=write_parquet(tmp_path, [row])))) == [
        Conversation(HELLO, [False, True], [WEATHER])
    ]


def test_rows_keep_numbers_across_batches(tmp_path: Path) -> None:
    rows = [{"text": "a"}] * 500
    rows[399] = {"text": " "}
    assert refusal(write_parquet(tmp_path, rows, row_group_size=100)).startswith("row 400: text is empty")


def test_columns_of_times_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    nanoseconds = pyarrow.array([1], pyarrow.timestamp("ns", tz="Nowhere/None"))
    pyarrow.parquet.write_table(pyarrow.table({"at": nanoseconds, "text": ["a"]}), path)
    assert list(read_examples(DatasetFile(path=path))) == [PlainText("a")]


def test_bytes_where_text_is_due_are_refused(tmp_path: Path) -> None:
    assert refusal(write_parquet(tmp_path, [{"text": b"a"}])).startswith("row 1: text must be text")


def test_date_in_a_tool_is_refused(tmp_path: Path) -> None:
    tools = [{"name": "clock", "parameters": {"default": datetime(2026, 1, 1, tzinfo=UTC)}}]
    message = refusal(write_parquet(tmp_path, [{"messages": HELLO, "tools": tools}]))
    assert message.startswith("row 1: tools[0] has")


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1 and no more", b"PAR1" + bytes(40) + b"PAR1"])
def test_file_that_is_not_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    assert "not a readable Parquet file" in refusal(path)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    text = pyarrow.array([b"\xff"]).cast(pyarrow.string(), safe=False)
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), path)
    assert "not a readable Parquet file" in refusal(path)


def test_rows_too_large_to_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "MAX_BATCH_BYTES", 1 << 20)
    assert "64 of them are more than 1 MiB" in refusal(write_parquet(tmp_path, [{"text": "a" * 50_000}] * 70))


def test_oversized_unpacked_content_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [{"text": f"{n}{'a' * 50_000}"} for n in range(200)])
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to more than 1000000 bytes"):
        list(read_examples(DatasetFile(path=path), max_bytes=1_000_000))
    # Each text once in the file, and often in its rows: the file's own word for its size is small.
    path = write_parquet(tmp_path, [{"text": "a" * 50_000}] * 200)
    read = read_examples(DatasetFile(path=path), max_bytes=5_000_000)
    with pytest.raises(InputError, match="unpacks to more than 5000000 bytes"):
        list(read)
    assert len(list(read_examples(DatasetFile(path=path), max_bytes=20_000_000))) == 200


def test_pyarrow_is_loaded_for_parquet_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}')
    code = "import sys; from pathlib import Path; from dataset.dataset_reader import read_examples\n"
    code += "from dataset.dataset_file import DatasetFile\n"
    code += "list(read_examples(DatasetFile(path=Path(sys.argv[1])))); print('pyarrow' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "rows.jsonl")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"


def test_column_given_twice_is_refused(tmp_path: Path) -> None:
    columns = [pyarrow.array([text]) for text in ("q", "a", "b")]
    table = pyarrow.Table.from_arrays(columns, names=["instruction", "output", "output"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert refusal(tmp_path / "rows.parquet") == 'the file has more than one column "output"'


def test_map_with_a_repeated_key_is_refused(tmp_path: Path) -> None:
    arguments = pyarrow.array(
        [[("effort", "low"), ("effort", "high")]], pyarrow.map_(pyarrow.string(), pyarrow.string())
    )
    table = pyarrow.table({"instruction": ["q"], "output": ["a"], "chat_template_kwargs": arguments})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert 'a map that cannot be read: the key "effort" is given more than once' in refusal(tmp_path / "rows.parquet")
