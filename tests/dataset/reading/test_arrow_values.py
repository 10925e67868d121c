"""Every type that pyarrow writes to Parquet does no harm beside the fields that are read."""

import decimal
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation, PlainText
from dataset.reading.arrow_values import NotJson, to_values, value_bytes
from tests.dataset.example_files import HELLO, refusal, write_parquet


class AnyNotJson:
    """Equal to each: a type may come back as another, as seconds come back as milliseconds."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NotJson)


NOT_JSON: Any = AnyNotJson()
_NUMBER = decimal.Decimal("1.5")
INTEGERS = [pa.type_for_alias(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
JSON_HAS: list[tuple[pa.DataType, Any]] = [
    (pa.null(), None),
    (pa.bool_(), True),
    *((kind, 1) for kind in INTEGERS),
    *((kind, 1.5) for kind in (pa.float16(), pa.float32(), pa.float64())),
    *((kind, "a") for kind in (pa.string(), pa.large_string(), pa.string_view())),
]
OTHERS: list[tuple[pa.DataType, Any]] = [
    *((kind, b"a") for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))),
    *(
        (kind, 1)
        for kind in (pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    ),
    *(
        (pa.timestamp(unit, zone), 123456789123)
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "No/where")
    ),
    *((pa.duration(unit), 5) for unit in ("s", "ms", "us", "ns")),
    *((kind, _NUMBER) for kind in (pa.decimal32(5, 2), pa.decimal64(9, 2), pa.decimal128(9, 2), pa.decimal256(50, 2))),
]
EXTENSIONS = [
    (pa.uuid(), pa.array([b"a" * 16, None], pa.binary(16)), NOT_JSON),
    (pa.json_(), pa.array(['{"a": 1}', None]), '{"a": 1}'),
    (pa.bool8(), pa.array([1, None], pa.int8()), 1),
    (pa.opaque(pa.int8(), "geometry", "vendor"), pa.array([1, None], pa.int8()), 1),
    (pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [1, 2]),
]


def arrays() -> Iterator[tuple[pa.Array, Any]]:
    """A value and a null of each type, and what the value is read as."""
    for kind, value in JSON_HAS:
        yield pa.array([value, None], kind), value
    for kind, value in OTHERS:
        yield pa.array([value, None], kind), NOT_JSON
    for kind, storage, value in EXTENSIONS:
        yield pa.ExtensionArray.from_storage(kind, storage), value


def nested(array: pa.Array, value: Any) -> Iterator[tuple[pa.Array, list[Any]]]:
    """The two in each type that can hold them, and what is read."""
    yield array, [value, None]
    if array.type in (pa.string_view(), pa.binary_view()):
        return  # pyarrow writes them nowhere else
    yield (
        pa.StructArray.from_arrays([array, pa.array(["x", "y"])], ["v", "k"]),
        [{"k": "x"} if value is None else {"v": value, "k": "x"}, {"k": "y"}],
    )
    offsets, lengths = [0, 1, 2], [1, 1]
    for made in (pa.ListArray, pa.LargeListArray):
        yield made.from_arrays(offsets, array), [[value], [None]]
    for made in (pa.ListViewArray, pa.LargeListViewArray):
        yield made.from_arrays(offsets[:2], lengths, array), [[value], [None]]
    if array.type != pa.fixed_shape_tensor(pa.int8(), [2]):
        yield pa.FixedSizeListArray.from_arrays(array, 1), [[value], [None]]
    yield pa.MapArray.from_arrays(offsets, pa.array(["k", "l"]), array), [{"k": value}, {"l": None}]
    yield (
        pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([array], ["v"])),
        [
            [{} if value is None else {"v": value}],
            [{}],
        ],
    )
    if pa.types.is_string(array.type) or pa.types.is_integer(array.type) or pa.types.is_timestamp(array.type):
        yield array.dictionary_encode(), [value, None]


@pytest.mark.parametrize(("array", "value"), [pytest.param(*each, id=str(each[0].type)) for each in arrays()])
def test_each_type_is_read_at_any_place(tmp_path: Path, array: pa.Array, value: Any) -> None:
    for column, expected in nested(array, value):
        file = io.BytesIO()
        pq.write_table(pa.table({"text": ["a", "b"], "beside": column}), file)
        (tmp_path / "rows.parquet").write_bytes(file.getvalue())
        assert list(read_examples(DatasetFile(path=tmp_path / "rows.parquet"))) == [PlainText("a"), PlainText("b")]
        (batch,) = pq.ParquetFile(file).iter_batches()
        assert to_values(batch["beside"]) == expected, column.type


def test_map_without_text_for_keys_does_no_harm(tmp_path: Path) -> None:
    counts = pa.array([[(1, "a")], None], pa.map_(pa.int64(), pa.string()))
    pq.write_table(pa.table({"text": ["a", "b"], "counts": counts}), tmp_path / "rows.parquet")
    assert list(read_examples(DatasetFile(path=tmp_path / "rows.parquet"))) == [PlainText("a"), PlainText("b")]


def test_map_is_the_arguments_of_a_call(tmp_path: Path) -> None:
    arguments = pa.map_(pa.string(), pa.string())
    function = pa.struct({"name": pa.string(), "arguments": arguments})
    message = pa.struct(
        {"role": pa.string(), "content": pa.string(), "tool_calls": pa.list_(pa.struct({"function": function}))}
    )
    call = {"function": {"name": "weather", "arguments": [("city", "Ulm")]}}
    messages = [HELLO[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    table = pa.table({"messages": pa.array([messages] * 3, pa.list_(message))})
    pq.write_table(table.slice(1), tmp_path / "rows.parquet")
    for example in read_examples(DatasetFile(path=tmp_path / "rows.parquet")):
        assert isinstance(example, Conversation)
        assert example.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Ulm"}}


def test_slices_of_nested_arrays_have_their_own_values() -> None:
    rows = [{"a": [{"b": n}], "c": [("k", n)]} for n in range(6)]
    kind = pa.struct({"a": pa.list_(pa.struct({"b": pa.int64()})), "c": pa.map_(pa.string(), pa.int64())})
    array = pa.array([*rows, None], kind).slice(2, 5)
    assert to_values(array) == [*({"a": [{"b": n}], "c": {"k": n}} for n in range(2, 6)), None]
    assert value_bytes(array.slice(0, 1)) < value_bytes(array)


def test_struct_nulls_of_other_rows_are_missing(tmp_path: Path) -> None:
    tools = [
        {"function": {"name": name, "parameters": {"type": "object", "properties": {argument: {"type": "string"}}}}}
        for name, argument in (("weather", "city"), ("ship", "order"))
    ]
    rows = []
    for tool, arguments in zip(tools, ({"city": "Ulm"}, {"order": 7}), strict=True):
        call = {"function": {"name": tool["function"]["name"], "arguments": arguments}}
        messages = [HELLO[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
        rows.append({"messages": messages, "tools": [tool]})
    examples = list(read_examples(DatasetFile(path=write_parquet(tmp_path, rows))))
    for example, row in zip(examples, rows, strict=True):
        assert isinstance(example, Conversation)
        found = example.messages[1]["tool_calls"][0]["function"]
        assert found == row["messages"][1]["tool_calls"][0]["function"]
        assert example.tools == [{"type": "function", **row["tools"][0]}]


def test_unsupported_tool_values_are_refused_by_type(tmp_path: Path) -> None:
    for value, kind in ((pa.scalar(1, pa.timestamp("ns")), r"timestamp\[ns\]"), (b"a", "binary")):
        tools = [[{"name": "clock", "parameters": {"default": value}}]]
        table = pa.table({"messages": [HELLO], "tools": pa.array(tools)})
        pq.write_table(table, tmp_path / "rows.parquet")
        message = refusal(tmp_path / "rows.parquet")
        assert message.startswith("row 1: tools[0] has")
        assert kind.replace("\\", "") in message


def test_two_fields_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pq.write_table(pa.table({"text": ["a"], "twice": twice}), tmp_path / "rows.parquet")
    assert "two fields of one name" in refusal(tmp_path / "rows.parquet")


def test_dictionary_counts_as_often_as_its_values_come(tmp_path: Path) -> None:
    text = pa.array(["a" * 50_000] * 200).dictionary_encode()
    pq.write_table(pa.table({"text": text}), tmp_path / "rows.parquet")
    assert "unpacks to more than 5000000 bytes" in refusal(tmp_path / "rows.parquet", max_bytes=5_000_000)
    assert len(list(read_examples(DatasetFile(path=tmp_path / "rows.parquet"), max_bytes=20_000_000))) == 200
