"""Whatever a file holds, it is examples or an InputError that can be sent."""

import codecs
import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.failure import InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import ROLES, conversations_of
from dataset.formats.detect import FORMATS
from dataset.formats.sharegpt import SPEAKERS
from dataset.formats.turns import REASONING, REFUSED, WEIGHTS
from tests.dataset.example_files import PACKERS

FIELDS = sorted({field for format in FORMATS.values() for field in format.fields})

_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_TEXT = st.text(st.characters()) | st.just("answer")
_OR_ITS_TEXT = _JSON | _JSON.map(json.dumps)
_CALL: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {}, optional={"id": _JSON, "name": _JSON, "arguments": _OR_ITS_TEXT}
)
_CALL = _CALL | st.fixed_dictionaries({"function": _CALL | _JSON}) | _JSON
_PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "reasoning", "thinking", "tool_call", "tool_result", 3])},
    optional={"text": _TEXT, "value": _TEXT | _CALL, "train": st.sampled_from([True, 0, "0"])},
)
_SIMPLE: st.SearchStrategy[Any] = st.sampled_from([None, False, 0, 1.0, "0", "\ud800", [], {"a": None}])
_OF_ITSELF = dict.fromkeys((*WEIGHTS[:2], *REASONING[:2], *list(REFUSED)[:2]), _SIMPLE)
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES) | _JSON},
    optional=_OF_ITSELF
    | {
        "content": _TEXT | st.lists(_PART) | _JSON,
        "tool_calls": st.lists(_CALL) | _JSON,
        "name": _JSON,
        "tool_call_id": _JSON,
    },
)
_TURN = st.fixed_dictionaries(
    {"from": st.sampled_from(sorted(SPEAKERS)) | _JSON, "value": _TEXT | _CALL.map(json.dumps) | _JSON},
    optional=_OF_ITSELF,
)
_INSTANCE = st.fixed_dictionaries({}, optional={"input": _TEXT | _JSON, "output": _TEXT | _JSON})
_ROW = _JSON | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(FIELDS, _TEXT | _OR_ITS_TEXT)
    | dict.fromkeys(("images", "reasoning_content", "label", "weight", "chat_template_kwargs"), _SIMPLE)
    | {
        "messages": st.lists(_MESSAGE) | _OR_ITS_TEXT,
        "prompt": _TEXT | st.lists(_MESSAGE) | _JSON,
        "completion": _TEXT | st.lists(_MESSAGE) | _JSON,
        "chosen": _TEXT | st.lists(_MESSAGE | _TURN) | _JSON,
        "rejected": _TEXT | st.lists(_MESSAGE | _TURN) | _JSON,
        "conversations": st.lists(_TURN) | _OR_ITS_TEXT,
        "instances": st.lists(_INSTANCE) | _OR_ITS_TEXT,
        "tools": st.lists(_CALL) | _OR_ITS_TEXT,
        "history": st.lists(st.lists(_TEXT, max_size=3)) | _OR_ITS_TEXT,
        "input": _TEXT | st.lists(_TEXT) | _JSON,
        "output": _TEXT | st.lists(_TEXT) | _JSON,
    },
)
_JSON_FILE = st.lists(_ROW).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()) | st.lists(
    _ROW
).map(lambda rows: json.dumps(rows).encode())
_FILE = st.binary() | _JSON_FILE | st.builds(lambda content, end: content[:end], _JSON_FILE, st.integers(0, 200))
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


def read(path: Path, content: bytes, format: Any = "auto", columns: Any = None) -> None:
    path.write_bytes(content)
    message = ""
    try:
        for found in read_examples(DatasetFile(path=path, format=format, columns=columns)):
            json.dumps(dataclasses.asdict(found), ensure_ascii=False, allow_nan=False).encode()
            assert all(any(each.supervised) for each in conversations_of(found))
    except InputError as error:
        message = json.loads(error.failure.model_dump_json())["message"]
    assert "\0" not in message
    assert len(message) < 1_000


@given(_FILE, st.sampled_from(["auto", *FORMATS]))
@_SETTINGS
@example(b"[" * 100_000, "auto")
@example(b'[{"a":' * 100_000, "messages")
@example(b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}", "auto")
@example(b'{"tools": ' + b"[" * 900 + b"]" * 900 + b', "messages": [{"role": "assistant", "content": "a"}]}', "auto")
@example(b'{"messages": "' + b"[" * 100_000 + b'"}', "auto")
@example(b'{"instruction": "\\ud800", "output": "b"}', "auto")
def test_json_is_read_or_refused(tmp_path: Path, content: bytes, format: Any) -> None:
    read(tmp_path / "rows.json", content, format)


@given(st.lists(_ROW), st.sampled_from(["auto", *FORMATS]), st.data())
@_SETTINGS
def test_json_with_columns(tmp_path: Path, rows: list[Any], format: Any, data: st.DataObject) -> None:
    names = sorted({name for row in rows if isinstance(row, dict) for name in row} | {"other"})
    columns = data.draw(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(names)))
    read(tmp_path / "rows.json", json.dumps(rows).encode(), format, columns)


@given(
    st.binary() | st.text().map(lambda text: b"text\n" + text.encode()),
    st.sampled_from(["auto", *FORMATS]),
)
@_SETTINGS
def test_csv_is_read_or_refused(tmp_path: Path, content: bytes, format: Any) -> None:
    read(tmp_path / "rows.csv", content, format)


@given(st.lists(st.sampled_from(FIELDS), unique=True, min_size=1, max_size=5), st.data())
@_SETTINGS
def test_csv_with_the_fields_of_a_format(tmp_path: Path, header: list[str], data: st.DataObject) -> None:
    file = io.StringIO()
    cell = st.text() | st.lists(_MESSAGE | _TURN | _CALL | _INSTANCE).map(json.dumps)
    records = data.draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), max_size=3))
    csv.writer(file).writerows([header, *records])
    read(tmp_path / "rows.csv", file.getvalue().encode(), data.draw(st.sampled_from(["auto", *FORMATS])))


@given(_JSON_FILE, st.sampled_from(sorted(PACKERS)), st.integers(0, 200), st.binary(max_size=8))
@_SETTINGS
def test_packed_bytes_are_read_or_refused(
    tmp_path: Path, content: bytes, suffix: str, place: int, spoiled: bytes
) -> None:
    packed = PACKERS[suffix](content)
    read(tmp_path / f"rows.json.{suffix}", packed[:place] + spoiled + packed[place + len(spoiled) :])


@given(st.binary() | st.text().map(str.encode), st.sampled_from([b"", *_MARKS]))
@_SETTINGS
def test_text_is_read_or_refused(tmp_path: Path, content: bytes, mark: bytes) -> None:
    read(tmp_path / "rows.txt", mark + content)


@pytest.fixture(scope="module")
def parquet() -> bytes:
    file = io.BytesIO()
    rows = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": str(n)}]} for n in range(99)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@given(st.integers(4, 3_000), st.binary(max_size=8))
@_SETTINGS
def test_parquet_is_read_or_refused(tmp_path: Path, parquet: bytes, place: int, spoiled: bytes) -> None:
    place %= len(parquet)
    read(tmp_path / "rows", parquet[:place] + spoiled + parquet[place + len(spoiled) :])
